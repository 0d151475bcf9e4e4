//! The Events of a session: a closed list, each published once for what happened and not for each reconcile.
//!
//! | Type | Reason | When |
//! |---|---|---|
//! | Normal | `SessionStarted` | an AWS session shows in the status for the first time |
//! | Normal | `SessionEnded` | an AWS session has ended, with the reason of its end |
//! | Warning | each reason of `Stalled`, and each False one of `TargetConnected`, `AwsReachable` and `DestinationReachable` | the reason is new in the status, with the words of its condition |
//! | Warning | `OrphanTerminated` | an AWS session that nobody had recorded was terminated |
//! | Warning | `TerminationPending` | the session is gone before AWS confirmed the ends |
//! | Warning | `HeldByAnother` | the finalizer of another installation is on the session, so this one does nothing for it and says nothing in its status |
//!
//! And one of the operator itself: Warning `CustomResourceDefinitionOutdated`, on the definition of a kind that is older
//! than this program.
//!
//! They follow from the difference between the status that was written and the one before it. A trouble that comes and
//! goes is counted in one Event's series. An Event is a courtesy: one that the API server refuses is dropped, with a
//! warning in the log where a right is missing.

use std::collections::HashSet;

use k8s_openapi::api::core::v1::{Namespace, ObjectReference};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{Resource, ResourceExt as _};
use kube_runtime::events::{Event, EventType, Recorder};
use tokio::time::timeout;
use tracing::{debug, warn};

use super::context::Context;
use super::error::Error;
use crate::crd::condition::{ConditionStatus, ConditionType};
use crate::crd::session::AwsSession;
use crate::crd::{SsmListener, SsmSession, SsmSessionStatus};

/// Something that happened to a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionEvent {
    /// An AWS session was started.
    SessionStarted {
        /// Its id.
        session: String,
        /// The port that it is for.
        port: String,
    },
    /// An AWS session ended.
    SessionEnded {
        /// Its id.
        session: String,
        /// Why.
        why: String,
    },
    /// A condition says something that somebody should know.
    Trouble {
        /// The condition's reason.
        reason: String,
        /// The condition's words.
        message: String,
    },
    /// An AWS session that nobody had recorded was terminated.
    OrphanTerminated {
        /// Its id.
        session: String,
    },
    /// The session is gone before AWS confirmed the end of all its sessions; its listeners wait for that.
    TerminationPending {
        /// How many listeners.
        listeners: usize,
    },
    /// Another installation's finalizer came first: the status is that one's, and may be old if it is gone.
    HeldByAnother {
        /// Its finalizer.
        holder: String,
    },
}

/// The conditions that tell of trouble, and when they do. `Available` and `Ready` only follow from them.
const TROUBLES: [(ConditionType, ConditionStatus); 4] = [
    (ConditionType::Stalled, ConditionStatus::True),
    (ConditionType::TargetConnected, ConditionStatus::False),
    (ConditionType::AwsReachable, ConditionStatus::False),
    (ConditionType::DestinationReachable, ConditionStatus::False),
];

impl SessionEvent {
    /// The end of an AWS session, as a status reports it.
    #[must_use]
    pub fn ended(session: &AwsSession) -> Self {
        let reason = session.end_reason.map(|reason| format!("{reason:?}"));
        let mut why = reason.unwrap_or_else(|| "unknown".to_owned());
        if let Some(message) = &session.end_message {
            why = format!("{why}, {message}");
        }
        Self::SessionEnded {
            session: session.session_id.clone(),
            why,
        }
    }

    /// As it is published.
    #[must_use]
    pub fn to_event(&self) -> Event {
        let (type_, reason, action, note) = match self {
            Self::SessionStarted { session, port } => (
                EventType::Normal,
                "SessionStarted",
                "Start",
                format!("{session} was started for port {port}"),
            ),
            Self::SessionEnded { session, why } => (
                EventType::Normal,
                "SessionEnded",
                "End",
                format!("{session} ended: {why}"),
            ),
            Self::Trouble { reason, message } => (
                EventType::Warning,
                reason.as_str(),
                "Reconcile",
                message.clone(),
            ),
            Self::OrphanTerminated { session } => {
                let note = format!(
                    "{session} carried our marker, no listener recorded it, and it was terminated"
                );
                (EventType::Warning, "OrphanTerminated", "Sweep", note)
            }
            Self::TerminationPending { listeners } => {
                let note = format!(
                    "deleted while {listeners} listeners still wait for AWS to confirm the end of their sessions"
                );
                (EventType::Warning, "TerminationPending", "Delete", note)
            }
            Self::HeldByAnother { holder } => {
                let note = format!(
                    "not served by this installation until the finalizer {holder} is gone: another installation's, which writes the status; take it off if that is uninstalled"
                );
                (EventType::Warning, "HeldByAnother", "Wait", note)
            }
        };
        event(type_, reason, action, &note)
    }
}

fn event(type_: EventType, reason: &str, action: &str, note: &str) -> Event {
    Event {
        type_,
        reason: reason.to_owned(),
        // The API takes 1,024 bytes.
        note: Some(note.chars().take(250).collect()),
        action: action.to_owned(),
        secondary: None,
    }
}

/// The Event on a definition that lacks this of what the program knows.
#[must_use]
pub fn outdated(lacks: &[String]) -> Event {
    /// So many fit into a note; the log has them all.
    const NAMED_MAX: usize = 3;
    let named = &lacks[..lacks.len().min(NAMED_MAX)];
    let mut what = named.join(", ");
    if lacks.len() > named.len() {
        what = format!("{what} and {} more", lacks.len() - named.len());
    }
    let note = format!(
        "older than operator {}: {what} is dropped or refused. Apply the definitions of that version",
        env!("CARGO_PKG_VERSION"),
    );
    let reason = "CustomResourceDefinitionOutdated";
    event(EventType::Warning, reason, "Compare", &note)
}

/// What happened between two statuses. `ended`: the AWS sessions whose end the new one reports.
#[must_use]
pub fn between(
    old: &SsmSessionStatus,
    new: &SsmSessionStatus,
    ended: &[AwsSession],
) -> Vec<SessionEvent> {
    let ids = |sessions: &[AwsSession]| -> HashSet<String> {
        sessions
            .iter()
            .map(|session| session.session_id.clone())
            .collect()
    };
    let mut known = ids(&old.sessions);
    known.extend(ids(&old.history));
    let mut events = Vec::new();
    for session in new
        .sessions
        .iter()
        .filter(|session| !known.contains(&session.session_id) && session.end_reason.is_none())
    {
        events.push(SessionEvent::SessionStarted {
            session: session.session_id.clone(),
            port: session.port.clone().unwrap_or_default(),
        });
    }
    events.extend(ended.iter().map(SessionEvent::ended));
    // AccessDenied is a reason of two conditions, which begin one after the other.
    let mut told: HashSet<&str> = troubles(old).map(|c| c.reason.as_str()).collect();
    for condition in troubles(new) {
        if told.insert(&condition.reason) {
            events.push(SessionEvent::Trouble {
                reason: condition.reason.clone(),
                message: condition.message.clone(),
            });
        }
    }
    events
}

fn troubles(status: &SsmSessionStatus) -> impl Iterator<Item = &Condition> {
    let conditions = status.conditions.iter();
    conditions.filter(|condition| {
        TROUBLES.iter().any(|(type_, status)| {
            condition.type_ == type_.as_str() && condition.status == status.as_str()
        })
    })
}

/// Publishes an Event on a session.
pub(super) async fn publish(context: &Context, session: &SsmSession, event: SessionEvent) {
    publish_on(context, session.object_ref(&()), event).await;
}

/// Publishes an Event on the session of a listener, or on the operator's namespace when the listener is gone.
pub(super) async fn publish_orphan(
    context: &Context,
    listener: Option<&SsmListener>,
    event: SessionEvent,
) {
    let session = listener.and_then(|listener| {
        let reference = &listener.spec.session_ref;
        let session = context
            .sessions
            .get(&reference.namespace, &reference.name)?;
        (session.uid().as_deref() == Some(&reference.uid)).then_some(session)
    });
    let object = if let Some(session) = session {
        session.object_ref(&())
    } else {
        let options = &context.options;
        let uid = Some(options.namespace_uid.clone());
        beside_us::<Namespace>(context, options.namespace.clone(), uid)
    };
    publish_on(context, object, event).await;
}

/// Publishes that the served definition of a kind lacks something.
pub(super) async fn publish_outdated(
    context: &Context,
    served: &CustomResourceDefinition,
    lacks: &[String],
) {
    let object = beside_us::<CustomResourceDefinition>(context, served.name_any(), served.uid());
    let recorder = Recorder::new(context.client.clone(), context.reporter.clone());
    send(context, &recorder, &object, &outdated(lacks)).await;
}

/// Refers to an object that has no namespace, so that its Events are kept beside the operator: those without a namespace
/// are in `default`, where it may write none.
fn beside_us<K: Resource<DynamicType = ()>>(
    context: &Context,
    name: String,
    uid: Option<String>,
) -> ObjectReference {
    ObjectReference {
        api_version: Some(K::api_version(&()).into_owned()),
        kind: Some(K::kind(&()).into_owned()),
        name: Some(name),
        namespace: Some(context.options.namespace.clone()),
        uid,
        ..ObjectReference::default()
    }
}

async fn publish_on(context: &Context, object: ObjectReference, event: SessionEvent) {
    let recorder = match &event {
        SessionEvent::Trouble { .. } => context.recorder.clone(),
        // A recorder that remembers counts Events of the same reason as one and keeps the words of the first, but each
        // of these speaks of another AWS session.
        SessionEvent::SessionStarted { .. }
        | SessionEvent::SessionEnded { .. }
        | SessionEvent::OrphanTerminated { .. }
        | SessionEvent::TerminationPending { .. }
        | SessionEvent::HeldByAnother { .. } => {
            Recorder::new(context.client.clone(), context.reporter.clone())
        }
    };
    send(context, &recorder, &object, &event.to_event()).await;
}

async fn send(context: &Context, recorder: &Recorder, object: &ObjectReference, event: &Event) {
    let (reason, note) = (&event.reason, event.note.as_deref());
    let publish = recorder.publish(event, object);
    match timeout(context.options.api_timeout, publish).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            let error = Error::api("publish an Event")(error);
            if let Some(words) = denied(&error) {
                warn!(reason, note, "Event dropped, a right is missing: {words}");
            } else {
                debug!(reason, note, %error, "Event refused and dropped");
            }
        }
        Err(_) => debug!(
            reason,
            note, "Event dropped: the API server does not answer"
        ),
    }
}

/// The API server's words when somebody must give us a right; a namespace that is terminating refuses every Event.
fn denied(error: &Error) -> Option<&str> {
    error.refusal().filter(|_| error.is_forbidden())
}

#[cfg(test)]
mod tests;
