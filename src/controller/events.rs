//! The Events of a session: a closed list, each published once for what happened and not for each reconcile.
//!
//! They follow from the difference between the status that was written and the one before it. An Event is a courtesy:
//! one that the API server refuses, as it does in a namespace that is terminating, is dropped.

use std::collections::HashSet;

use k8s_openapi::api::core::v1::{Namespace, ObjectReference};
use kube::{Resource as _, ResourceExt as _};
use kube_runtime::events::{Event, EventType, Recorder};
use tokio::time::timeout;
use tracing::debug;

use super::context::Context;
use crate::crd::condition::{AwsReachableReason, StalledReason};
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
    /// IAM denies a call.
    AccessDenied {
        /// AWS's words.
        message: String,
    },
    /// The Service's name is taken.
    ServiceConflict {
        /// By what.
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
}

impl SessionEvent {
    fn to_event(&self) -> Event {
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
            Self::AccessDenied { message } => (
                EventType::Warning,
                "AccessDenied",
                "CallAws",
                message.clone(),
            ),
            Self::ServiceConflict { message } => (
                EventType::Warning,
                "ServiceConflict",
                "EnsureService",
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
        };
        // The API takes 1,024 bytes.
        let note = note.chars().take(250).collect();
        Event {
            type_,
            reason: reason.to_owned(),
            note: Some(note),
            action: action.to_owned(),
            secondary: None,
        }
    }
}

/// What happened between two statuses.
#[must_use]
pub fn between(old: &SsmSessionStatus, new: &SsmSessionStatus) -> Vec<SessionEvent> {
    let ids = |sessions: &[AwsSession]| -> HashSet<String> {
        sessions
            .iter()
            .map(|session| session.session_id.clone())
            .collect()
    };
    let old_ended = ids(&old.history);
    let known: HashSet<String> = ids(&old.sessions).union(&old_ended).cloned().collect();
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
    for session in new
        .history
        .iter()
        .filter(|session| !old_ended.contains(&session.session_id))
    {
        let mut why = session
            .end_reason
            .map_or("unknown".to_owned(), |reason| format!("{reason:?}"));
        if let Some(message) = &session.end_message {
            why = format!("{why}, {message}");
        }
        events.push(SessionEvent::SessionEnded {
            session: session.session_id.clone(),
            why,
        });
    }
    let newly = |type_: &str, reason: &str| {
        let find = |status: &SsmSessionStatus| {
            let mut conditions = status.conditions.iter();
            conditions
                .find(|c| c.type_ == type_ && c.reason == reason)
                .map(|c| c.message.clone())
        };
        find(new).filter(|_| find(old).is_none())
    };
    if let Some(message) = newly("AwsReachable", AwsReachableReason::AccessDenied.as_str()) {
        events.push(SessionEvent::AccessDenied { message });
    }
    if let Some(message) = newly("Stalled", StalledReason::ServiceConflict.as_str()) {
        events.push(SessionEvent::ServiceConflict { message });
    }
    events
}

/// Publishes an Event on a session.
pub async fn publish(context: &Context, session: &SsmSession, event: SessionEvent) {
    publish_on(context, session.object_ref(&()), event).await;
}

/// Publishes an Event on the session of a listener, or on the operator's namespace when the listener is gone.
pub async fn publish_orphan(
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
    let object = match session {
        Some(session) => session.object_ref(&()),
        None => ObjectReference {
            api_version: Some(Namespace::api_version(&()).into_owned()),
            kind: Some(Namespace::kind(&()).into_owned()),
            name: Some(context.options.namespace.clone()),
            // Events of the namespace itself are kept in it, beside the operator.
            namespace: Some(context.options.namespace.clone()),
            uid: Some(context.options.namespace_uid.clone()),
            ..ObjectReference::default()
        },
    };
    publish_on(context, object, event).await;
}

async fn publish_on(context: &Context, object: ObjectReference, event: SessionEvent) {
    // One recorder would count Events of the same reason as one and keep the words of the first, but each of ours
    // speaks of another AWS session.
    let recorder = Recorder::new(context.client.clone(), context.reporter.clone());
    let publish = event.to_event();
    match timeout(
        context.options.api_timeout,
        recorder.publish(&publish, &object),
    )
    .await
    {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(?event, %error, "Event refused and dropped"),
        Err(_) => debug!(?event, "Event dropped: the API server does not answer"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crd::condition::{Condition, Conditions};
    use crate::crd::listener::EndReason;

    fn session(id: &str, reason: Option<EndReason>) -> AwsSession {
        AwsSession {
            session_id: id.into(),
            port: Some("sql".into()),
            end_reason: reason,
            ..AwsSession::default()
        }
    }

    fn stalled(reason: StalledReason) -> SsmSessionStatus {
        let mut conditions = Conditions::new(1);
        conditions.set(Condition::Stalled(reason), "words");
        let conditions = conditions.merge(&[], jiff::Timestamp::UNIX_EPOCH);
        SsmSessionStatus {
            conditions,
            ..SsmSessionStatus::default()
        }
    }

    #[test]
    fn the_same_status_again_is_no_event() {
        let mut status = stalled(StalledReason::ServiceConflict);
        status.sessions.push(session("a", None));
        assert_eq!(between(&status, &status), []);
    }

    #[test]
    fn a_session_starts_and_ends_once() {
        let none = SsmSessionStatus::default();
        let up = SsmSessionStatus {
            sessions: vec![session("a", None)],
            ..none.clone()
        };
        let end = session("a", Some(EndReason::Deleted));
        let over = SsmSessionStatus {
            history: vec![end],
            ..none.clone()
        };
        let started = SessionEvent::SessionStarted {
            session: "a".into(),
            port: "sql".into(),
        };
        let ended = SessionEvent::SessionEnded {
            session: "a".into(),
            why: "Deleted".into(),
        };
        assert_eq!(between(&none, &up), [started]);
        assert_eq!(between(&up, &over), [ended]);
        assert_eq!(between(&over, &over), []);
    }

    #[test]
    fn a_session_that_is_seen_only_after_its_end_was_not_started_now() {
        let none = SsmSessionStatus::default();
        let ending = SsmSessionStatus {
            sessions: vec![session("a", Some(EndReason::RelayLost))],
            ..none.clone()
        };
        assert_eq!(between(&none, &ending), []);
    }

    #[test]
    fn a_conflict_is_told_when_it_begins() {
        let none = SsmSessionStatus::default();
        let conflict = stalled(StalledReason::ServiceConflict);
        let told = SessionEvent::ServiceConflict {
            message: "words".into(),
        };
        assert_eq!(between(&none, &conflict), [told]);
        assert_eq!(between(&stalled(StalledReason::InvalidDocument), &none), []);
    }
}
