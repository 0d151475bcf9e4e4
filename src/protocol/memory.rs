//! What a session keeps in memory, and how little it can do with.
//!
//! The machines only say how much they keep. Whether there is more for them is decided by who knows of other sessions;
//! one that is told to be frugal goes on in small steps, both ways.
//!
//! What comes never waits for what goes. What goes waits for what comes where clients do not read, frugal or not: the
//! agent's acknowledgements come behind its data. Data beyond the limit is not passed over to get at them: the agent sends
//! again ten messages a second, and forgets the oldest where too many are missing.

use std::collections::VecDeque;
use std::mem::size_of;
use std::ops::{Add, AddAssign, SubAssign};

/// Bytes that buffers keep, by where their content goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// To the far end.
    pub outgoing: usize,
    /// To the clients.
    pub incoming: usize,
}

impl Memory {
    /// Both ways together.
    #[must_use]
    pub fn bytes(self) -> usize {
        self.outgoing.saturating_add(self.incoming)
    }
}

impl Add for Memory {
    type Output = Self;

    fn add(mut self, other: Self) -> Self {
        self += other;
        self
    }
}

impl AddAssign for Memory {
    fn add_assign(&mut self, other: Self) {
        self.outgoing = self.outgoing.saturating_add(other.outgoing);
        self.incoming = self.incoming.saturating_add(other.incoming);
    }
}

impl SubAssign for Memory {
    fn sub_assign(&mut self, other: Self) {
        self.outgoing = self.outgoing.saturating_sub(other.outgoing);
        self.incoming = self.incoming.saturating_sub(other.incoming);
    }
}

/// What a queue keeps, used or not.
pub(super) fn queue_bytes<T>(queue: &VecDeque<T>) -> usize {
    queue.capacity() * size_of::<T>()
}

/// Entries that are not worth it to be given back one by one.
const FEW: usize = 64;

/// Gives back what a queue has grown to and does not need any more, in few steps.
pub(super) fn shrink<T>(queue: &mut VecDeque<T>) {
    if queue.is_empty() {
        *queue = VecDeque::new();
    } else if queue.capacity() > FEW && queue.len() <= queue.capacity() / 2 {
        queue.shrink_to(queue.capacity() / 4 * 3);
    }
}

/// With so many bytes on their way to the agent, all streams together, a frugal session takes nothing more of its
/// clients: one stream's worth.
pub const FRUGAL_SEND_BYTES: usize = 64 << 10;

/// With so many bytes that its clients have not taken, a frugal session reads nothing more: what a client says before it
/// reads has to fit in, and one client may be slow.
pub const FRUGAL_UNREAD_BYTES: usize = 256 << 10;

/// So many bytes a frugal session keeps ahead of a missing message; what comes beyond is sent again.
pub const FRUGAL_AHEAD_BYTES: usize = 64 << 10;

/// Acknowledgements that wait for the websocket of a frugal session.
pub const FRUGAL_ACKNOWLEDGEMENTS_MAX: usize = 512;
