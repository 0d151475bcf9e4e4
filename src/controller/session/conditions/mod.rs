//! The conditions of a session, from what its listeners, its Service, the relays and AWS say.
//!
//! Pure, and a function of the state: no counter and no time goes into a message.

mod facts;

use std::collections::BTreeMap;
use std::time::Duration;

use super::decide::{Now, Settings};
use super::desired::{is_fresh, slice_is_ready};
use super::observe::{ClassFound, Observed, ServiceFound};
use crate::crd::SsmListener;
use crate::crd::condition::{
    AvailableReason, Condition, Conditions, ReadyReason, ReconcilingReason, StalledReason,
};
use crate::crd::listener::{ErrorClass, ListenerError, ListenerState};

/// Something that keeps the declared state out of reach until somebody changes something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// What.
    pub reason: StalledReason,
    /// In words, with what to do.
    pub message: String,
}

impl Trouble {
    fn new(reason: StalledReason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
        }
    }
}

/// The trouble that counts, if there is any: what must be mended first comes first.
#[must_use]
pub fn trouble(observed: &Observed) -> Option<Trouble> {
    if let ClassFound::Missing { message } = &observed.class {
        return Some(Trouble::new(StalledReason::ClassNotFound, message));
    }
    if let ServiceFound::Conflict { message } = &observed.service {
        return Some(Trouble::new(StalledReason::ServiceConflict, message));
    }
    let generation = observed.session.metadata.generation.unwrap_or_default();
    if let Some((_, refusal)) = observed
        .memory
        .refusal
        .as_ref()
        .filter(|(of, _)| *of == generation)
    {
        return Some(Trouble::new(StalledReason::InvalidRequest, refusal));
    }
    if observed.session.spec.target.to_aws().is_none() {
        let message = "spec.target names no target: set id or ecsTask";
        return Some(Trouble::new(StalledReason::InvalidRequest, message));
    }
    observed.listeners.iter().find_map(|listener| {
        let error = error_of(listener, observed)?;
        let reason = stalled_by(error.class)?;
        Some(Trouble::new(
            reason,
            format!("port {}: {}", listener.spec.port, error.message),
        ))
    })
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
        | ErrorClass::NoPort => None,
    }
}

/// The error of a listener, unless it speaks of a spec, or comes from a relay, that is no longer its own.
fn error_of<'a>(listener: &'a SsmListener, observed: &Observed) -> Option<&'a ListenerError> {
    let status = listener
        .status
        .as_ref()
        .filter(|_| is_fresh(listener, &observed.relays))?;
    let current = status.observed_generation == listener.metadata.generation;
    status
        .last_error
        .as_ref()
        .filter(|_| current && status.state != ListenerState::Serving)
}

/// Whether the trouble has lasted long enough to be called Stalled. Flux gives up at once on Stalled, and a class or
/// a role that was applied in the same sync arrives late.
#[must_use]
pub fn is_stalled(trouble: &Trouble, observed: &Observed, settings: &Settings, now: Now) -> bool {
    match trouble.reason {
        StalledReason::ServiceConflict
        | StalledReason::InvalidDocument
        | StalledReason::InvalidRequest
        | StalledReason::UnsupportedSessionType => true,
        StalledReason::AccessDenied | StalledReason::ClassNotFound => {
            let long = until_stalled(trouble, observed, settings, now).is_zero();
            // Said before, maybe by another process: it is not taken back while it lasts.
            long || observed.previous().conditions.iter().any(|condition| {
                condition.type_ == "Stalled" && condition.reason == trouble.reason.as_str()
            })
        }
    }
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
        ListenerState::Serving => {
            let ServiceFound::Ours(service) = &observed.service else {
                return Port::Preparing;
            };
            let name_of = service.metadata.name.as_deref().unwrap_or_default();
            let ready = observed
                .slices
                .iter()
                .any(|slice| slice_is_ready(slice, name_of, name));
            if ready {
                Port::Serving
            } else {
                Port::Preparing
            }
        }
        ListenerState::Starting if status.last_error.is_none() => Port::Starting,
        ListenerState::Starting | ListenerState::Waiting => Port::Failing,
        ListenerState::Ended => Port::Starting,
    }
}

/// All conditions. `settled`: nothing is left to be written for what the spec asks.
#[must_use]
pub fn conditions(
    observed: &Observed,
    trouble: Option<&Trouble>,
    stalled: bool,
    settled: bool,
) -> Conditions {
    let session = &observed.session;
    let mut conditions = Conditions::new(session.metadata.generation.unwrap_or_default());
    let ports: BTreeMap<&str, Port> = session
        .spec
        .ports
        .iter()
        .map(|port| (port.name.as_str(), port_state(observed, &port.name)))
        .collect();
    let serving = ports
        .values()
        .filter(|port| **port == Port::Serving)
        .count();
    let all = serving == ports.len();
    let count = format!("{serving} of {} ports can be dialled", ports.len());
    set_available(&mut conditions, observed, &ports, &count);
    facts::set_aws(&mut conditions, observed);
    facts::set_target(&mut conditions, observed);
    facts::set_destination(&mut conditions, observed);
    if session.metadata.deletion_timestamp.is_some() {
        let message = format!(
            "{} listeners wait for the end of their sessions",
            observed.listeners.len()
        );
        conditions.set(Condition::Ready(ReadyReason::Deleting), message);
        return conditions;
    }
    if let Some(trouble) = trouble.filter(|_| stalled) {
        conditions.set(Condition::Ready(ReadyReason::Failed), &trouble.message);
        conditions.set(Condition::Stalled(trouble.reason), &trouble.message);
        return conditions;
    }
    if all && settled && trouble.is_none() {
        conditions.set(Condition::Ready(ReadyReason::Available), &count);
        return conditions;
    }
    let (reason, message) = reconciling(observed, trouble, &ports);
    let broken = ports
        .values()
        .any(|port| matches!(port, Port::Failing | Port::Unbound));
    let ready = if serving > 0 && broken {
        ReadyReason::Degraded
    } else {
        ReadyReason::Progressing
    };
    conditions.set(Condition::Ready(ready), &count);
    conditions.set(Condition::Reconciling(reason), message);
    conditions
}

fn reconciling(
    observed: &Observed,
    trouble: Option<&Trouble>,
    ports: &BTreeMap<&str, Port>,
) -> (ReconcilingReason, String) {
    match &observed.class {
        ClassFound::Ours { .. } => {}
        ClassFound::Missing { message } => return (ReconcilingReason::Resolving, message.clone()),
        ClassFound::Foreign { name } => {
            let message = format!(
                "SsmSessionClass {name} is another installation's: what was made here ends, and that one takes over"
            );
            return (ReconcilingReason::Resolving, message);
        }
    }
    if let ServiceFound::Leaving { message } = &observed.service {
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
        let error = error.and_then(|listener| error_of(listener, observed));
        let words = error.map_or("the start failed", |error| error.message.as_str());
        return (ReconcilingReason::Retrying, format!("port {name}: {words}"));
    }
    if let Some(name) = has(Port::Unbound) {
        return (
            ReconcilingReason::Resolving,
            format!("port {name} waits for a relay with room"),
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
    let message =
        format!("port {name}: listener, Service and slices are being made").replace("port : ", "");
    (ReconcilingReason::Starting, message)
}

fn set_available(
    conditions: &mut Conditions,
    observed: &Observed,
    ports: &BTreeMap<&str, Port>,
    count: &str,
) {
    if ports.values().all(|port| *port == Port::Serving) {
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
        .filter_map(|listener| error_of(listener, observed));
    let no_room = no_room
        .into_iter()
        .find(|error| error.class == ErrorClass::NoPort);
    if let Some(error) = no_room {
        conditions.set(
            Condition::Available(AvailableReason::NoRelay),
            &error.message,
        );
    } else if ports.values().any(|port| *port == Port::Unbound) {
        let message = if any_relay {
            "no relay has room"
        } else {
            "no relay is alive"
        };
        conditions.set(Condition::Available(AvailableReason::NoRelay), message);
    } else {
        conditions.set(Condition::Available(AvailableReason::NoSession), count);
    }
}
