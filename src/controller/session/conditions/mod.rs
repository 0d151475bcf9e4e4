//! The conditions of a session, from what its listeners, its Service, the relays and AWS say.
//!
//! Pure, and a function of the state: no counter and no time goes into a message.

mod facts;

use std::collections::BTreeMap;
use std::time::Duration;

use super::desired::{error_of, is_fresh, slice_is_ready};
use super::observe::{ClassFound, Observed};
use super::plan::{Now, Plan, Settings, Trouble};
use super::service::ServiceFound;
use crate::controller::context::Refusal;
use crate::crd::SsmSessionStatus;
use crate::crd::condition::{
    AvailableReason, Condition, Conditions, ReadyReason, ReconcilingReason, StalledReason,
};
use crate::crd::listener::{ErrorClass, ListenerState};

/// The trouble that counts, if there is any: what must be mended first comes first.
#[must_use]
pub fn trouble(observed: &Observed) -> Option<Trouble> {
    if let ClassFound::Missing { message, .. } = &observed.class {
        return Some(Trouble::new(StalledReason::ClassNotFound, message));
    }
    if let ServiceFound::Conflict { message } = &observed.service {
        return Some(Trouble::new(StalledReason::ServiceConflict, message));
    }
    if let Some(refusal) = refusal(observed) {
        return Some(Trouble {
            passing: refusal.forbidden,
            ..Trouble::new(StalledReason::InvalidRequest, &refusal.message)
        });
    }
    if observed.session.spec.target.to_aws().is_none() {
        let message = "spec.target names no target: set id or ecsTask";
        return Some(Trouble::new(StalledReason::InvalidRequest, message));
    }
    observed.listeners.iter().find_map(|listener| {
        let error = error_of(listener, &observed.relays)?;
        let reason = stalled_by(error.class)?;
        Some(Trouble::new(
            reason,
            format!("port {}: {}", listener.spec.port, error.message),
        ))
    })
}

/// What the API server refused of what this generation asks for.
fn refusal(observed: &Observed) -> Option<&Refusal> {
    let generation = observed.session.metadata.generation.unwrap_or_default();
    let refusal = observed.memory.refusal.as_ref();
    refusal.filter(|refusal| refusal.generation == generation)
}

fn stalled_by(class: ErrorClass) -> Option<StalledReason> {
    match class {
        ErrorClass::AccessDenied => Some(StalledReason::AccessDenied),
        ErrorClass::InvalidDocument => Some(StalledReason::InvalidDocument),
        ErrorClass::InvalidRequest => Some(StalledReason::InvalidRequest),
        ErrorClass::UnsupportedSessionType => Some(StalledReason::UnsupportedSessionType),
        ErrorClass::CredentialsUnavailable
        | ErrorClass::TargetNotConnected
        | ErrorClass::Throttled
        | ErrorClass::AwsUnavailable
        | ErrorClass::DataChannel
        | ErrorClass::SessionClosed
        | ErrorClass::NoPort
        | ErrorClass::Unknown => None,
    }
}

/// Whether the trouble has lasted long enough to be called Stalled. Flux gives up at once on Stalled, and a class or
/// a role that was applied in the same sync arrives late.
#[must_use]
pub fn is_stalled(trouble: &Trouble, observed: &Observed, settings: &Settings, now: Now) -> bool {
    let long = !trouble.passing || until_stalled(trouble, observed, settings, now).is_zero();
    // Said before, maybe by another process: it is not taken back while it lasts.
    long || observed.previous.conditions.iter().any(|condition| {
        condition.type_ == "Stalled" && condition.reason == trouble.reason.as_str()
    })
}

/// How long the trouble must still last to be called Stalled.
#[must_use]
pub fn until_stalled(
    trouble: &Trouble,
    observed: &Observed,
    settings: &Settings,
    now: Now,
) -> Duration {
    let seen = observed
        .memory
        .trouble
        .filter(|(reason, _)| *reason == trouble.reason);
    let lasted = seen.map_or(Duration::ZERO, |(_, since)| {
        now.instant.duration_since(since)
    });
    settings.stalled_after.saturating_sub(lasted)
}

/// How far one port is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Port {
    /// There is no listener, or its Service or slice is not there yet.
    Preparing,
    /// No living relay has it.
    Unbound,
    /// A session is being started for the first time, or anew.
    Starting,
    /// A session of an earlier spec is still what runs.
    Retargeting,
    /// A start failed.
    Failing,
    /// Clients can dial.
    Serving,
}

fn port_state(observed: &Observed, name: &str) -> Port {
    let listener = observed
        .listeners
        .iter()
        .find(|listener| listener.spec.port == name);
    let Some(listener) = listener.filter(|l| l.metadata.deletion_timestamp.is_none()) else {
        return Port::Preparing;
    };
    if listener
        .spec
        .relay
        .as_deref()
        .is_none_or(|relay| observed.relays.is_gone(relay))
    {
        return Port::Unbound;
    }
    let Some(status) = listener
        .status
        .as_ref()
        .filter(|_| is_fresh(listener, &observed.relays))
    else {
        return Port::Starting;
    };
    if status.observed_generation != listener.metadata.generation {
        let had = status
            .sessions
            .iter()
            .any(|session| session.ended_at.is_none());
        return if had {
            Port::Retargeting
        } else {
            Port::Starting
        };
    }
    match status.state {
        ListenerState::Serving if leads_there(observed, name) => Port::Serving,
        ListenerState::Serving if status.last_error.is_some() => Port::Failing,
        ListenerState::Serving => Port::Preparing,
        ListenerState::Starting if status.last_error.is_none() => Port::Starting,
        ListenerState::Starting | ListenerState::Waiting => Port::Failing,
        ListenerState::Ended | ListenerState::Unknown => Port::Starting,
    }
}

/// Whether a slice of our Service sends clients of the port to a relay that listens.
fn leads_there(observed: &Observed, port: &str) -> bool {
    let ServiceFound::Ours(service) = &observed.service else {
        return false;
    };
    let name = service.metadata.name.as_deref().unwrap_or_default();
    let mut slices = observed.slices.iter();
    slices.any(|slice| slice_is_ready(slice, name, port))
}

/// Whether clients can dial the port now, also while its session is about to be replaced.
fn can_be_dialled(observed: &Observed, port: &str) -> bool {
    let mut listeners = observed.listeners.iter();
    let serves = listeners.any(|listener| {
        let state = listener.status.as_ref().map(|status| status.state);
        listener.spec.port == port
            && listener.metadata.deletion_timestamp.is_none()
            && state == Some(ListenerState::Serving)
            && is_fresh(listener, &observed.relays)
    });
    serves && leads_there(observed, port)
}

/// All conditions. `plan`: what is left to be written for what the spec asks.
#[must_use]
pub fn conditions(
    observed: &Observed,
    trouble: Option<&Trouble>,
    stalled: bool,
    plan: &Plan,
) -> Conditions {
    let session = &observed.session;
    let mut conditions = Conditions::new(session.metadata.generation.unwrap_or_default());
    let ports: BTreeMap<&str, Port> = session
        .spec
        .ports
        .iter()
        .map(|port| (port.name.as_str(), port_state(observed, &port.name)))
        .collect();
    let all = ports.values().all(|port| *port == Port::Serving);
    let dialled = ports.keys().filter(|name| can_be_dialled(observed, name));
    let dialled = dialled.count();
    let count = format!("{dialled} of {} ports can be dialled", ports.len());
    if let Some(holder) = observed.held_by() {
        set_held(&mut conditions, holder);
        return conditions;
    }
    if observed.unread().is_none() {
        set_available(&mut conditions, observed, &ports, dialled, &count);
    }
    if observed.is_draining() {
        set_draining(&mut conditions, observed);
        return conditions;
    }
    facts::set_aws(&mut conditions, observed);
    facts::set_target(&mut conditions, observed);
    facts::set_destination(&mut conditions, observed);
    if session.metadata.deletion_timestamp.is_some() {
        let mut message = format!(
            "{} listeners wait for the end of their sessions",
            observed.left()
        );
        if let Some(refusal) = refusal(observed) {
            message = format!("{message}; refused: {}", refusal.message);
        }
        conditions.set(Condition::Ready(ReadyReason::Deleting), message);
        return conditions;
    }
    let held = plan.held_listeners.first();
    if let Some(trouble) = trouble.filter(|_| stalled) {
        // What is in the way may be what a change is to mend that waits itself.
        let held = held.map(|held| format!("; {held}")).unwrap_or_default();
        let message = format!("{}{held}", trouble.message);
        conditions.set(Condition::Ready(ReadyReason::Failed), &message);
        conditions.set(Condition::Stalled(trouble.reason), message);
        return conditions;
    }
    if all && plan.is_settled() && trouble.is_none() {
        conditions.set(Condition::Ready(ReadyReason::Available), &count);
        return conditions;
    }
    let (reason, message) = match (reconciling(observed, trouble, &ports), held) {
        (of_others, None) => of_others,
        (_, Some(held)) if all && trouble.is_none() => {
            (ReconcilingReason::Retargeting, held.to_string())
        }
        ((reason, message), Some(held)) => (reason, format!("{message}; {held}")),
    };
    let broken = ports
        .values()
        .any(|port| matches!(port, Port::Failing | Port::Unbound));
    let ready = if dialled > 0 && broken {
        ReadyReason::Degraded
    } else {
        ReadyReason::Progressing
    };
    conditions.set(Condition::Ready(ready), observed.unread().unwrap_or(&count));
    conditions.set(Condition::Reconciling(reason), message);
    conditions
}

/// What is true while the session is let go, and stays true when no operator is left to correct it.
fn set_draining(conditions: &mut Conditions, observed: &Observed) {
    let mut message = "the operator is being uninstalled, or was: nothing serves this session until one is installed \
                       again"
        .to_owned();
    let left = observed.left();
    if left > 0 {
        message = format!("{message}; {left} listeners wait for the end of their sessions");
        // What is in the way of that is known from AWS, and told for as long as somebody asks.
        facts::set_aws(conditions, observed);
    }
    conditions.set(Condition::Ready(ReadyReason::Draining), message);
}

/// What is true of us, and of nobody else: whoever serves the session writes another status.
fn set_held(conditions: &mut Conditions, holder: &str) {
    let message = format!(
        "the finalizer {holder} of another installation was put on the session, and this one has let it go: if there is no \
         such installation, take the finalizer off"
    );
    conditions.set(Condition::Ready(ReadyReason::HeldByAnother), &message);
    conditions.set(Condition::Available(AvailableReason::NoSession), message);
}

/// Whether a status says that, and so nobody has written another since.
#[must_use]
pub fn says_held(status: &SsmSessionStatus) -> bool {
    let reason = ReadyReason::HeldByAnother.as_str();
    let mut conditions = status.conditions.iter();
    conditions.any(|condition| condition.type_ == "Ready" && condition.reason == reason)
}

fn reconciling(
    observed: &Observed,
    trouble: Option<&Trouble>,
    ports: &BTreeMap<&str, Port>,
) -> (ReconcilingReason, String) {
    match &observed.class {
        ClassFound::Ours { .. } => {}
        ClassFound::Missing { message, .. } => {
            return (ReconcilingReason::Resolving, message.clone());
        }
        ClassFound::Foreign { name } => {
            let message = format!(
                "SsmSessionClass {name} is another installation's: what was made here ends, and that one takes over"
            );
            return (ReconcilingReason::Resolving, message);
        }
    }
    if let ServiceFound::Leaving { message } | ServiceFound::Unread { message } = &observed.service
    {
        return (ReconcilingReason::Resolving, message.clone());
    }
    if let Some(trouble) = trouble {
        return (ReconcilingReason::Retrying, trouble.message.clone());
    }
    let has = |state: Port| {
        ports
            .iter()
            .find(|(_, of)| **of == state)
            .map(|(name, _)| *name)
    };
    if let Some(name) = has(Port::Failing) {
        let error = observed
            .listeners
            .iter()
            .find(|listener| listener.spec.port == name);
        let error = error.and_then(|listener| error_of(listener, &observed.relays));
        let words = error.map_or("the start failed", |error| error.message.as_str());
        return (ReconcilingReason::Retrying, format!("port {name}: {words}"));
    }
    if let Some(name) = has(Port::Unbound) {
        return (
            ReconcilingReason::Resolving,
            format!("port {name} waits for a relay"),
        );
    }
    if let Some(name) = has(Port::Retargeting) {
        let message =
            format!("port {name}: the AWS session is replaced after a change of the spec");
        return (ReconcilingReason::Retargeting, message);
    }
    if let Some(name) = has(Port::Starting) {
        return (
            ReconcilingReason::Starting,
            format!("port {name}: an AWS session is being started"),
        );
    }
    let name = has(Port::Preparing).unwrap_or_default();
    let message = if name.is_empty() {
        "the Service and the slices are being changed".to_owned()
    } else {
        format!("port {name}: listener, Service and slices are being made")
    };
    (ReconcilingReason::Starting, message)
}

fn set_available(
    conditions: &mut Conditions,
    observed: &Observed,
    ports: &BTreeMap<&str, Port>,
    dialled: usize,
    count: &str,
) {
    if dialled == ports.len() {
        return conditions.set(Condition::Available(AvailableReason::Serving), count);
    }
    let any_relay = observed
        .relays
        .relays
        .keys()
        .any(|relay| !observed.relays.is_gone(relay));
    let no_room = observed
        .listeners
        .iter()
        .filter_map(|listener| error_of(listener, &observed.relays));
    let no_room = no_room
        .into_iter()
        .find(|error| error.class == ErrorClass::NoPort);
    let unbound = ports.values().any(|port| *port == Port::Unbound);
    let (reason, message) = if let Some(error) = no_room {
        (AvailableReason::NoCapacity, error.message.as_str())
    } else if unbound && !any_relay {
        (AvailableReason::NoRelay, "no relay is alive")
    } else if unbound && observed.relays_full {
        (AvailableReason::NoCapacity, "no relay has room")
    } else {
        (AvailableReason::NoSession, count)
    };
    conditions.set(Condition::Available(reason), message);
}
