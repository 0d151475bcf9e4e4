//! What tests look at: sessions, targets and counted calls, as they are right now.

use std::collections::BTreeMap;

use serde::Serialize;

use super::request::Operation;

/// Everything that can be seen. It holds no token.
#[derive(Clone, Debug, Serialize)]
pub struct Overview {
    /// All sessions so far, oldest first.
    pub sessions: Vec<SessionView>,
    /// Targets whose agent is connected, sorted.
    pub targets: Vec<String>,
    /// Calls so far.
    pub calls: BTreeMap<Operation, Calls>,
    /// Roles that were assumed so far, oldest first.
    pub assumed: Vec<AssumedRole>,
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

/// A role that was assumed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AssumedRole {
    /// `RoleArn`.
    pub role_arn: String,
    /// `RoleSessionName`.
    pub session_name: String,
    /// `ExternalId`, when there was one.
    pub external_id: Option<String>,
    /// ARN of who assumed it, or the ServiceAccount by whose token it was.
    pub by: String,
    /// `jti` of that token.
    pub token: Option<String>,
}

/// One session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SessionView {
    /// `SessionId`.
    pub id: String,
    /// `Owner`: ARN of who started it. Only who has its account and its role session name may resume, terminate or open
    /// it, as a policy on role session names has it; with EKS Pod Identity the cluster does for the name.
    pub owner: String,
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

/// `Status` of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Status {
    /// Started, and not yet attached from both sides.
    Connecting,
    /// Attached from both sides.
    Connected,
    /// Was connected, and one side's websocket is away.
    Disconnected,
    /// `TerminateSession` was called a moment ago.
    Terminating,
    /// Ended.
    Terminated,
    /// The agent failed.
    Failed,
}

impl Status {
    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connecting => "Connecting",
            Self::Connected => "Connected",
            Self::Disconnected => "Disconnected",
            Self::Terminating => "Terminating",
            Self::Terminated => "Terminated",
            Self::Failed => "Failed",
        }
    }

    /// Whether no websocket may be attached any more.
    #[must_use]
    pub fn is_over(self) -> bool {
        matches!(self, Self::Terminating | Self::Terminated | Self::Failed)
    }

    /// Whether the session counts as history; a terminating one is still active, which is a choice.
    pub(super) fn is_history(self) -> bool {
        matches!(self, Self::Terminated | Self::Failed)
    }
}
