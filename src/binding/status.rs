//! A relay's report in the words of `SsmListener.status`.
//!
//! Pure, and a function of the report alone: equal reports give equal statuses, so that what is recorded already is
//! not written again.

use std::net::IpAddr;

use jiff::Timestamp;

use super::convert::aws_of;
use crate::broker::ErrorKind;
use crate::crd::SsmListenerStatus;
use crate::crd::listener::{
    self, DestinationState, ErrorClass, ListenerError, ListenerSession, ListenerState,
};
use crate::crd::text::cut;
use crate::relay::{self, Destination, Failure, Report, SessionEnd, SessionRecord, State};

/// Who writes the statuses of one relay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Writer {
    /// Name of the relay.
    pub relay: String,
    /// This run of its process.
    pub incarnation: String,
    /// Addresses by which pods reach it, one at most of each family.
    pub addresses: Vec<IpAddr>,
}

/// The status that says what `report` says.
#[must_use]
pub fn status_of(report: &Report, writer: &Writer) -> SsmListenerStatus {
    let Report {
        generation,
        port,
        state,
        ready,
        sessions,
        failure,
        retry_at,
        destination,
    } = report;
    let Writer {
        relay,
        incarnation,
        addresses,
    } = writer;
    SsmListenerStatus {
        observed_generation: Some(*generation),
        relay: relay.clone(),
        incarnation: incarnation.clone(),
        addresses: addresses.iter().map(ToString::to_string).collect(),
        port: port.map(i32::from),
        state: state_of(*state),
        ready: *ready,
        sessions: sessions.iter().map(session_of).collect(),
        last_error: failure.as_ref().map(error_of),
        retry_at: retry_at.map(rfc3339),
        destination: destination.map(destination_of),
    }
}

fn state_of(state: State) -> ListenerState {
    match state {
        State::Starting => ListenerState::Starting,
        State::Serving => ListenerState::Serving,
        State::Waiting => ListenerState::Waiting,
        State::Ended => ListenerState::Ended,
    }
}

fn destination_of(destination: Destination) -> DestinationState {
    match destination {
        Destination::Dialled => DestinationState::Dialled,
        Destination::Refused => DestinationState::Refused,
    }
}

fn session_of(record: &SessionRecord) -> ListenerSession {
    let SessionRecord {
        session_id,
        identity,
        relay,
        incarnation,
        started_at,
        end,
    } = record;
    let (ended_at, end_reason, end_message) = match end {
        None => (None, None, None),
        Some(SessionEnd {
            at,
            reason,
            message,
        }) => {
            let message = (!message.is_empty()).then(|| cut(message).into_owned());
            (Some(rfc3339(*at)), Some(end_reason_of(*reason)), message)
        }
    };
    ListenerSession {
        session_id: session_id.as_str().to_owned(),
        relay: relay.clone(),
        incarnation: incarnation.clone(),
        identity: aws_of(identity),
        started_at: rfc3339(*started_at),
        ended_at,
        end_reason,
        end_message,
    }
}

fn end_reason_of(reason: relay::EndReason) -> listener::EndReason {
    match reason {
        relay::EndReason::Deleted => listener::EndReason::Deleted,
        relay::EndReason::Replaced => listener::EndReason::Replaced,
        relay::EndReason::RelayLost => listener::EndReason::RelayLost,
        relay::EndReason::StartFailed => listener::EndReason::StartFailed,
        relay::EndReason::Broken => listener::EndReason::Broken,
        relay::EndReason::Unanswered => listener::EndReason::Unanswered,
        relay::EndReason::TerminatedExternally => listener::EndReason::TerminatedExternally,
        relay::EndReason::ClosedByService => listener::EndReason::ClosedByService,
    }
}

fn error_of(failure: &Failure) -> ListenerError {
    let class = match failure {
        Failure::Broker(error) => match error.kind {
            ErrorKind::AccessDenied => ErrorClass::AccessDenied,
            ErrorKind::CredentialsUnavailable => ErrorClass::CredentialsUnavailable,
            ErrorKind::InvalidDocument => ErrorClass::InvalidDocument,
            ErrorKind::InvalidRequest => ErrorClass::InvalidRequest,
            ErrorKind::TargetNotConnected => ErrorClass::TargetNotConnected,
            ErrorKind::Throttled => ErrorClass::Throttled,
            ErrorKind::Unavailable => ErrorClass::AwsUnavailable,
            ErrorKind::Gone => ErrorClass::SessionClosed,
        },
        // Whoever reads this sees a session that did not come to serve; the words say that the API server was why.
        Failure::DataChannel(_) | Failure::Recording(_) => ErrorClass::DataChannel,
        Failure::Unsupported(_) => ErrorClass::UnsupportedSessionType,
        // Of the new spec nothing has failed: it has a class from which nothing is concluded, whatever failed before.
        Failure::SessionClosed(_) | Failure::EditedAgain(_) => ErrorClass::SessionClosed,
        Failure::NoPort(_) => ErrorClass::NoPort,
    };
    ListenerError {
        class,
        message: cut(&failure.to_string()).into_owned(),
    }
}

/// RFC 3339 in UTC with milliseconds at most: what AWS gives, and enough for a person.
fn rfc3339(at: Timestamp) -> String {
    Timestamp::from_millisecond(at.as_millisecond())
        .unwrap_or(at)
        .to_string()
}
