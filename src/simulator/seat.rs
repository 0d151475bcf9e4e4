//! The places at a data channel: whose websocket sits where, and how it is sent away.

use tokio_util::sync::CancellationToken;

/// Who is at the other end of a websocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// Who called `StartSession`.
    Client,
    /// The target's agent.
    Agent,
}

/// One attached websocket.
#[derive(Clone)]
pub(super) struct Seat {
    /// Tells it from one that came later.
    pub(super) generation: u64,
    /// Closes it with 1000 `Bye`.
    pub(super) kick: CancellationToken,
    /// Resets its connection.
    pub(super) reset: CancellationToken,
}
