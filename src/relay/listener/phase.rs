//! The words of a listener's machine: its phases, and what it asks its driver for.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use crate::broker::{Identity, SessionId, StartRequest, Ticket};
use crate::relay::report::EndReason;

/// What the driver has to do.
#[derive(Debug)]
pub enum Action {
    /// Call StartSession, once.
    Start(Identity, StartRequest),
    /// Open the data channel.
    Open(Identity, Ticket),
    /// Let clients in.
    Admit,
    /// Let no more clients in for now; those that are there stay.
    Hold,
    /// Let no client in, reset those that are there, close the data channel.
    Close(EndReason),
    /// Call TerminateSession.
    Terminate(SessionId, Identity),
    /// Say that a session has ended; `own` if this run started it.
    Ended {
        id: SessionId,
        reason: EndReason,
        own: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// The listener has no future.
    Final,
    /// It has none here: its record is another's, or nobody's.
    Disowned,
    /// This process has none; another run goes on with the listener.
    Shutdown,
}

#[derive(Debug)]
pub(super) enum Phase {
    Claiming,
    /// StartSession is on its way; `wanted` unless the wish has changed meanwhile.
    Starting {
        identity: Identity,
        wanted: bool,
    },
    Opening {
        session: SessionId,
        recorded: bool,
        established: bool,
        deadlines: Deadlines,
    },
    /// New clients are let in while its websocket is up.
    Serving {
        session: SessionId,
        since: Instant,
        admitting: bool,
    },
    Waiting {
        until: Instant,
    },
    Stopped,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Deadlines {
    pub(super) recorded: Instant,
    pub(super) established: Instant,
}

/// Instants of the two clocks: one that only goes forward, and the calendar's.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// For deadlines.
    pub monotonic: Instant,
    /// For records.
    pub wall: Timestamp,
}

impl Now {
    /// The present instants. Records say whole seconds.
    #[must_use]
    pub fn read() -> Self {
        let seconds = Timestamp::now().as_second();
        let wall = Timestamp::from_second(seconds).unwrap_or(Timestamp::UNIX_EPOCH);
        Self {
            monotonic: Instant::now(),
            wall,
        }
    }

    /// The instant after `delay`, on both clocks.
    pub(super) fn after(self, delay: Duration) -> (Instant, Timestamp) {
        let wall = self.wall.saturating_add(delay).unwrap_or(Timestamp::MAX);
        (self.monotonic + delay, wall)
    }
}
