//! What happens on a data channel, and how it ends.

use std::time::Duration;

use bytes::Bytes;

use crate::protocol::agreement::cut;

/// Characters of the far end's words for people that are kept: they end up in statuses and logs.
pub(super) const OUTPUT_CHARS_MAX: usize = 1024;

/// What happens on a data channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The handshake is complete: a port session with the multiplexer.
    Established(Established),
    /// Bytes of the multiplexer, in order.
    Data(Bytes),
    /// The agent could not dial the destination of one of the streams.
    ConnectFailed,
    /// The agent took so long to acknowledge a message that was sent to it once; told once a second at most.
    RoundTrip(Duration),
    /// The session is over, or has to be ended.
    Ended(End),
}

/// What the handshake has shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Established {
    /// Version of the agent.
    pub agent_version: String,
    /// Whether this agent closes a multiplexer that sends no keepalive.
    pub keepalive: bool,
    /// The agent's words for the user; may be empty.
    pub customer_message: String,
}

/// Why a data channel has no future.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The service closed it, for good, and said why; may be empty.
    Closed(String),
    /// It is not a port session with the multiplexer. The session lives and has to be terminated.
    Unsupported(String),
    /// The far end broke the protocol. The session lives and has to be terminated.
    Violation(String),
    /// The agent is not there, or is stuck. The session lives and has to be terminated.
    Unanswered(String),
}

impl End {
    /// With words that can be kept. They repeat the far end's, of which the parser of a wrong message makes several times
    /// as many.
    pub(super) fn bounded(self) -> Self {
        let bounded = |why: String| cut(&why, OUTPUT_CHARS_MAX);
        match self {
            Self::Closed(why) => Self::Closed(bounded(why)),
            Self::Unsupported(why) => Self::Unsupported(bounded(why)),
            Self::Violation(why) => Self::Violation(bounded(why)),
            Self::Unanswered(why) => Self::Unanswered(bounded(why)),
        }
    }
}
