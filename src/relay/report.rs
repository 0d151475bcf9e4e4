//! What a listener is asked to do, and what it says of itself: the relay's face towards whoever owns it.

use std::fmt;

use futures::future::BoxFuture;
use jiff::Timestamp;

use crate::broker::{BrokerError, Identity, RequestId, SessionId, StartRequest};

/// Names a listener for its owner; the relay looks no further into it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ListenerId(pub String);

impl fmt::Display for ListenerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a listener is to serve. A changed identity or request replaces the AWS session on the same port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerSpec {
    /// The owner's number of this wish, given back in reports as `observed_generation`.
    pub generation: i64,
    /// With what AWS is called.
    pub identity: Identity,
    /// What StartSession is asked for, the marker in its reason.
    pub request: StartRequest,
    /// Sessions of which AWS says that they ended, and why: they are dropped.
    pub lost: Vec<(SessionId, EndReason)>,
}

/// What earlier runs recorded of a listener: taken over when it is served for the first time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inherited {
    /// The port on which this relay served it before; taken back if it is free.
    pub port: Option<u16>,
    /// The sessions on record. Live ones of another run are terminated and recorded as [`EndReason::RelayLost`].
    pub sessions: Vec<SessionRecord>,
}

/// One AWS session of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRecord {
    /// Its id.
    pub session_id: SessionId,
    /// With what it was started, and so is terminated.
    pub identity: Identity,
    /// The relay that started it.
    pub relay: String,
    /// The run of the relay's process that started it.
    pub incarnation: String,
    /// When StartSession answered.
    pub started_at: Timestamp,
    /// Its end, once the relay has seen it and AWS has answered TerminateSession.
    pub end: Option<SessionEnd>,
}

/// How a session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionEnd {
    /// When.
    pub at: Timestamp,
    /// Why.
    pub reason: EndReason,
    /// The service's own words; may be empty.
    pub message: String,
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EndReason {
    /// Nobody wishes for it any more.
    Deleted,
    /// The wish changed, or moved to another relay.
    Replaced,
    /// The run of the relay that held it is over.
    RelayLost,
    /// It could not be used.
    StartFailed,
    /// It served, until what came over its data channel could not be understood.
    Broken,
    /// It served, until its agent answered nothing for minutes: the target may have stopped.
    Unanswered,
    /// Somebody terminated it in AWS.
    TerminatedExternally,
    /// The service closed it.
    ClosedByService,
}

/// The whole truth about a listener. The same state gives an equal report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// [`ListenerSpec::generation`] of the wish that this report speaks of.
    pub generation: i64,
    /// The TCP port, once it listens.
    pub port: Option<u16>,
    /// Where it is in its life.
    pub state: State,
    /// It listens, and has not failed to start for longer than the hold.
    pub ready: bool,
    /// Live sessions, then the last five that ended, newest first.
    pub sessions: Vec<SessionRecord>,
    /// What went wrong last; none while a session serves.
    pub failure: Option<Failure>,
    /// When a failed start is tried again.
    pub retry_at: Option<Timestamp>,
    /// What the agent's last dial came to; none before the first.
    pub destination: Option<Destination>,
}

/// Where a listener is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// A session is being started, or is about to be.
    Starting,
    /// A session is up.
    Serving,
    /// The last start failed.
    Waiting,
    /// Stopped: nothing listens, and every session is terminated.
    Ended,
}

/// What the agent's last dial of the destination came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Destination {
    /// It accepted.
    Dialled,
    /// It refused, or could not be reached from the target.
    Refused,
}

/// What went wrong with a listener.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// A call to AWS failed. Without the id of its request, so that the same failure gives an equal report.
    #[error(transparent)]
    Broker(BrokerError),
    /// The data channel could not be opened, or the agent did not shake hands in time.
    #[error("data channel: {0}")]
    DataChannel(String),
    /// The session is not a port session with the multiplexer.
    #[error("unsupported session: {0}")]
    Unsupported(String),
    /// A session that was up has ended.
    #[error("the session ended: {0}")]
    SessionClosed(String),
    /// The wish has changed again, and is not followed yet. With what had gone wrong before, if anything had.
    #[error("the spec changed again before any session had served for a minute: it is followed at the next try{}", before(.0.as_deref()))]
    EditedAgain(Option<Box<Failure>>),
    /// No port of the relay's range could be listened on.
    #[error("no port to listen on: {0}")]
    NoPort(String),
    /// The state could not be recorded, so AWS was not called or its session was terminated again.
    #[error("state could not be recorded: {0}")]
    Recording(String),
}

impl Failure {
    /// What kind of failure it is, in words of our own.
    #[must_use]
    pub fn summary(&self) -> String {
        let words = match self {
            Self::Broker(error) => return error.summary(),
            Self::DataChannel(_) => "no data channel",
            Self::Unsupported(_) => "unsupported session",
            Self::SessionClosed(_) => "the session ended",
            Self::EditedAgain(_) => "the spec changed again",
            Self::NoPort(_) => "no port to listen on",
            Self::Recording(_) => "state could not be recorded",
        };
        words.to_owned()
    }
}

fn before(failure: Option<&Failure>) -> String {
    failure.map_or_else(String::new, |failure| format!("; before that: {failure}"))
}

impl From<BrokerError> for Failure {
    fn from(error: BrokerError) -> Self {
        Self::Broker(BrokerError {
            request_id: RequestId::default(),
            ..error
        })
    }
}

/// Keeps reports where they outlive the relay. Implemented by the floor above.
pub trait Recorder: Send + Sync + 'static {
    /// Records `report`, and returns once it is durable. Recording the same report again is cheap. A call that takes
    /// longer than [`super::RelayOptions::record_timeout`] is abandoned, and counts as failed.
    ///
    /// # Errors
    /// [`RecordError::NotOurs`] when the listener no longer belongs to this relay: nothing was written.
    fn record<'a>(&'a self, report: &'a Report) -> BoxFuture<'a, Result<(), RecordError>>;
}

/// Why a report was not recorded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The listener was given to another relay, or is gone: this relay writes nothing and drops it.
    #[error("the listener is no longer this relay's")]
    NotOurs,
    /// The record can't be reached now; it is tried again.
    #[error("{0}")]
    Unavailable(String),
}
