//! The conditions that only repeat what relays and AWS say: they take no part in what `Ready` comes to.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::broker::{ErrorKind, Identity};
use crate::controller::session::desired::{error_of, is_fresh};
use crate::controller::session::observe::{ClassFound, Observed};
use crate::controller::trust::identity_of_record;
use crate::crd::SsmListener;
use crate::crd::condition::{
    AwsReachableReason, Condition, Conditions, DestinationReachableReason, TargetConnectedReason,
};
use crate::crd::listener::{DestinationState, ErrorClass, ListenerState};
use crate::identity::identity_of;

fn fresh(observed: &Observed) -> impl Iterator<Item = &Arc<SsmListener>> {
    observed
        .listeners
        .iter()
        .filter(|listener| is_fresh(listener, &observed.relays))
}

fn any_serving(observed: &Observed) -> bool {
    let states = fresh(observed).filter_map(|listener| listener.status.as_ref());
    states
        .into_iter()
        .any(|status| status.ready && status.state == ListenerState::Serving)
}

/// The identities that count: the class', and those of sessions that still run. What is polled for the end of an old
/// session says nothing of this one.
fn counted(observed: &Observed) -> BTreeSet<Identity> {
    let mut counted = BTreeSet::new();
    for listener in &observed.listeners {
        let sessions = listener.status.iter().flat_map(|status| &status.sessions);
        let live = sessions.filter(|session| session.ended_at.is_none());
        counted.extend(live.filter_map(|session| identity_of_record(&listener.spec, session)));
    }
    match &observed.class {
        ClassFound::Ours { identity, .. } => {
            counted.insert(identity_of(identity));
        }
        ClassFound::Missing { .. } | ClassFound::Foreign { .. } => {}
    }
    counted
}

/// Whether AWS serves us: what the relays say of their starts, and then what the poll says.
pub fn set_aws(conditions: &mut Conditions, observed: &Observed) {
    let of_start = fresh(observed)
        .filter_map(|listener| error_of(listener, &observed.relays))
        .find_map(|error| {
            let reason = match error.class {
                ErrorClass::AccessDenied => AwsReachableReason::AccessDenied,
                ErrorClass::CredentialsUnavailable => AwsReachableReason::CredentialsUnavailable,
                ErrorClass::Throttled => AwsReachableReason::Throttled,
                ErrorClass::AwsUnavailable => AwsReachableReason::AwsUnavailable,
                ErrorClass::InvalidDocument
                | ErrorClass::InvalidRequest
                | ErrorClass::UnsupportedSessionType
                | ErrorClass::TargetNotConnected
                | ErrorClass::DataChannel
                | ErrorClass::SessionClosed
                | ErrorClass::NoPort
                | ErrorClass::Unknown => return None,
            };
            Some((reason, error.message.clone()))
        });
    let counted = counted(observed);
    let snapshots = || {
        counted
            .iter()
            .filter_map(|identity| observed.snapshots.get(identity))
    };
    let of_poll = || {
        snapshots()
            .filter_map(|snapshot| snapshot.error.as_ref())
            .find_map(|error| {
                let reason = match error.kind {
                    ErrorKind::AccessDenied => AwsReachableReason::AccessDenied,
                    ErrorKind::CredentialsUnavailable => AwsReachableReason::CredentialsUnavailable,
                    ErrorKind::Throttled => AwsReachableReason::Throttled,
                    ErrorKind::Unavailable => AwsReachableReason::AwsUnavailable,
                    ErrorKind::InvalidDocument
                    | ErrorKind::InvalidRequest
                    | ErrorKind::TargetNotConnected
                    | ErrorKind::Gone => return None,
                };
                Some((reason, error.to_string()))
            })
    };
    if let Some((reason, message)) = of_start.or_else(of_poll) {
        conditions.set(Condition::AwsReachable(reason), message);
    } else if any_serving(observed) || snapshots().any(|snapshot| snapshot.round > 0) {
        conditions.set(
            Condition::AwsReachable(AwsReachableReason::Reachable),
            "AWS answers",
        );
    }
}

/// Whether Session Manager reaches the target, as the starts say.
pub fn set_target(conditions: &mut Conditions, observed: &Observed) {
    let errors = fresh(observed).filter_map(|listener| error_of(listener, &observed.relays));
    let not_connected = errors
        .into_iter()
        .find(|error| error.class == ErrorClass::TargetNotConnected);
    if let Some(error) = not_connected {
        let reason = TargetConnectedReason::TargetNotConnected;
        conditions.set(Condition::TargetConnected(reason), &error.message);
    } else if any_serving(observed) {
        let reason = TargetConnectedReason::Connected;
        conditions.set(
            Condition::TargetConnected(reason),
            "Session Manager reaches the target",
        );
    }
}

/// What the last dials of the destinations came to.
pub fn set_destination(conditions: &mut Conditions, observed: &Observed) {
    let dial = |listener: &Arc<SsmListener>| {
        let dialled = listener.status.as_ref()?.destination?;
        match dialled {
            DestinationState::Dialled | DestinationState::Refused => {
                Some((listener.spec.port.clone(), dialled))
            }
            DestinationState::Unknown => None,
        }
    };
    let dials: Vec<(String, DestinationState)> = fresh(observed).filter_map(dial).collect();
    if let Some((port, _)) = dials
        .iter()
        .find(|(_, dial)| *dial == DestinationState::Refused)
    {
        let message =
            format!("port {port}: the destination refused, or the target does not reach it");
        conditions.set(
            Condition::DestinationReachable(DestinationReachableReason::Refused),
            message,
        );
    } else if !dials.is_empty() {
        let message = "the destination accepted the last connection";
        conditions.set(
            Condition::DestinationReachable(DestinationReachableReason::Dialled),
            message,
        );
    }
}
