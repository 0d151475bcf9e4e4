//! What tests look at: sessions, targets and counted calls, as they are right now.

use std::collections::BTreeMap;

use serde::Serialize;

use super::request::Operation;
use super::sessions::Status;

/// Everything that can be seen. It holds no token.
#[derive(Clone, Debug, Serialize)]
pub struct Overview {
    /// All sessions so far, oldest first.
    pub sessions: Vec<SessionView>,
    /// Targets whose agent is connected, sorted.
    pub targets: Vec<String>,
    /// Calls so far.
    pub calls: BTreeMap<Operation, Calls>,
    /// Frames that [`super::Fault::LoseFrames`] lost so far.
    pub frames_lost: u64,
}

impl Overview {
    /// The session of that id.
    #[must_use]
    pub fn session(&self, id: &str) -> Option<&SessionView> {
        self.sessions.iter().find(|session| session.id == id)
    }
}

/// Calls of one operation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Calls {
    /// All of them, failed ones included.
    pub total: u64,
    /// Those that carried a `SigV4` header for `ssm`.
    pub signed: u64,
}

/// One session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SessionView {
    /// `SessionId`.
    pub id: String,
    /// The target.
    pub target: String,
    /// The document's name.
    pub document: String,
    /// `Reason`, when there was one.
    pub reason: Option<String>,
    /// `Status`, with no consistency delay.
    pub status: Status,
    /// When it was started.
    pub started: jiff::Timestamp,
    /// When it ended.
    pub ended: Option<jiff::Timestamp>,
    /// What the agent said at the end; empty when it said nothing.
    pub output: String,
    /// Whether the client's websocket is open.
    pub client_attached: bool,
    /// Whether the agent's websocket is open.
    pub agent_attached: bool,
    /// Websockets of the client so far.
    pub client_websockets: u64,
    /// Those of them whose upgrade carried a `SigV4` header for `ssmmessages`.
    pub client_websockets_signed: u64,
    /// Tokens that `ResumeSession` gave.
    pub resumed: u64,
}
