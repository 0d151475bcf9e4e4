//! What an `SsmListener` says, in the relay's words.
//!
//! Pure: objects in, wishes out. What can't be read in a recorded session is replaced or left out with a warning, never
//! a reason to refuse the listener: a session that no record names is ended by the sweeper.

use jiff::Timestamp;
use tracing::warn;

use crate::broker::{Identity, Marker, SessionId, StartRequest};
use crate::crd::class::{Aws, Endpoints};
use crate::crd::listener::{self, ListenerSession};
use crate::crd::{SsmListener, SsmListenerSpec};
use crate::identity::identity_of;
use crate::relay::{self, Inherited, ListenerId, ListenerSpec, SessionEnd, SessionRecord};

/// Name and UID of a listener: one that was deleted and made again is another one.
///
/// `None` for an object that never came from an API server.
#[must_use]
pub fn id_of(object: &SsmListener) -> Option<ListenerId> {
    let name = object.metadata.name.as_deref()?;
    let uid = object.metadata.uid.as_deref()?;
    Some(ListenerId(format!("{name}/{uid}")))
}

/// What the relay is to serve for a listener; `namespace_uid` and `listener_uid` make the marker.
#[must_use]
pub fn spec_of(
    spec: &SsmListenerSpec,
    generation: i64,
    namespace_uid: &str,
    listener_uid: &str,
) -> ListenerSpec {
    let marker = Marker::new(namespace_uid, listener_uid);
    ListenerSpec {
        generation,
        identity: identity_of(&spec.identity),
        request: StartRequest {
            target: spec.target.clone(),
            document: spec.document.name.clone(),
            parameters: spec.document.parameters.clone(),
            reason: marker.append_to(&spec.reason),
        },
        lost: spec
            .lost_sessions
            .iter()
            .filter_map(|lost| {
                let id = SessionId::parse(&lost.session_id)?;
                Some((id, end_reason_of(lost.reason)))
            })
            .collect(),
    }
}

/// What earlier runs recorded of a listener. The port counts only if this relay held it.
#[must_use]
pub fn inherited_of(object: &SsmListener, relay: &str) -> Inherited {
    let Some(status) = &object.status else {
        return Inherited::default();
    };
    let port = recorded_port(object, relay);
    let sessions = status.sessions.iter();
    let sessions = sessions
        .filter_map(|session| session_of(&object.spec, session))
        .collect();
    Inherited { port, sessions }
}

/// The port on which `relay` served the listener before, if it did.
#[must_use]
pub fn recorded_port(object: &SsmListener, relay: &str) -> Option<u16> {
    let status = object
        .status
        .as_ref()
        .filter(|status| status.relay == relay)?;
    status.port.and_then(|port| u16::try_from(port).ok())
}

/// A recorded session; `None` when its id is none that AWS gives.
///
/// The record is another relay's word, and AWS is never called with what it alone says: a session whose identity the spec
/// does not name is ended with the listener's own.
fn session_of(spec: &SsmListenerSpec, session: &ListenerSession) -> Option<SessionRecord> {
    let ListenerSession {
        session_id,
        relay,
        incarnation,
        identity: _,
        started_at,
        ended_at,
        end_reason,
        end_message,
    } = session;
    let Some(id) = SessionId::parse(session_id) else {
        warn!(
            session_id,
            "a recorded session has no usable id: it is dropped from the record"
        );
        return None;
    };
    let identity = spec.identity_of_record(session).unwrap_or_else(|| {
        if ended_at.is_none() {
            warn!(
                session_id,
                relay,
                "a relay recorded a session with an AWS identity that its listener never had: it is ended with the \
                 listener's own"
            );
        }
        &spec.identity
    });
    let end = ended_at.as_deref().map(|at| SessionEnd {
        at: timestamp_of(at, session_id),
        reason: end_reason_of(end_reason.unwrap_or_default()),
        message: end_message.clone().unwrap_or_default(),
    });
    Some(SessionRecord {
        session_id: id,
        identity: identity_of(identity),
        relay: relay.clone(),
        incarnation: incarnation.clone(),
        started_at: timestamp_of(started_at, session_id),
        end,
    })
}

/// A time that a relay wrote. One that can't be read must not keep the session from being terminated, so it becomes
/// the oldest there is.
fn timestamp_of(text: &str, session_id: &str) -> Timestamp {
    text.parse().unwrap_or_else(|error| {
        warn!(session_id, %error, "a recorded session has an unreadable time");
        Timestamp::UNIX_EPOCH
    })
}

/// The snapshot of an identity, as it is recorded with a session.
#[must_use]
pub fn aws_of(identity: &Identity) -> Aws {
    let Identity {
        region,
        ssm_endpoint,
        ssmmessages_endpoint,
        role,
    } = identity;
    let endpoints = (ssm_endpoint.is_some() || ssmmessages_endpoint.is_some()).then(|| Endpoints {
        ssm: ssm_endpoint.clone(),
        ssmmessages: ssmmessages_endpoint.clone(),
    });
    let role = role.as_ref();
    Aws {
        region: region.clone(),
        endpoints,
        role_arn: role.map(|role| role.arn.clone()),
        external_id: role.and_then(|role| role.external_id.clone()),
        // In words, also where the class named none: what is recorded does not change with the default.
        session_name: role.map(|role| role.session_name.clone()),
    }
}

fn end_reason_of(reason: listener::EndReason) -> relay::EndReason {
    match reason {
        listener::EndReason::Deleted => relay::EndReason::Deleted,
        listener::EndReason::Replaced => relay::EndReason::Replaced,
        listener::EndReason::RelayLost => relay::EndReason::RelayLost,
        listener::EndReason::StartFailed => relay::EndReason::StartFailed,
        listener::EndReason::Broken => relay::EndReason::Broken,
        listener::EndReason::Unanswered => relay::EndReason::Unanswered,
        listener::EndReason::TerminatedExternally => relay::EndReason::TerminatedExternally,
        listener::EndReason::ClosedByService | listener::EndReason::Unknown => {
            relay::EndReason::ClosedByService
        }
    }
}
