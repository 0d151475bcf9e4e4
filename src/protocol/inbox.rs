//! What was heard, put into order: each message is delivered once, and acknowledged as often as it comes.

use std::collections::BTreeMap;

use super::message::Message;

/// Messages kept ahead of a missing one. The far end resends one message in 100 ms, so that it takes a long gap to
/// reach this; beyond it messages are dropped unacknowledged and come again.
const AHEAD_MESSAGES_MAX: usize = 10_000;

/// Bytes of payload kept ahead of a missing message, as much as the multiplexer's own budget.
const AHEAD_BYTES_MAX: usize = 4 << 20;

/// What to do with a message that has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// It is next in order: take it, and all that follow it, from [`Inbox::poll_deliver`]. Acknowledge it.
    Next,
    /// It is kept until those before it are there. Acknowledge it.
    Ahead,
    /// It was here before. Acknowledge it again: the first acknowledgement may have been lost.
    Duplicate,
    /// There is no room for it. No acknowledgement, so that it comes again.
    Dropped,
}

/// Messages of one direction on their way into order.
#[derive(Debug, Default)]
pub struct Inbox {
    expected: i64,
    ahead: BTreeMap<i64, Message>,
    ahead_bytes: usize,
}

impl Inbox {
    /// Takes a data message.
    pub fn handle_message(&mut self, message: Message) -> Arrival {
        let sequence = message.sequence;
        if sequence < self.expected || self.ahead.contains_key(&sequence) {
            return Arrival::Duplicate;
        }
        let next = sequence == self.expected;
        let full = self.ahead.len() >= AHEAD_MESSAGES_MAX
            || self.ahead_bytes.saturating_add(message.payload.len()) > AHEAD_BYTES_MAX;
        if full && !next {
            return Arrival::Dropped;
        }
        self.ahead_bytes += message.payload.len();
        self.ahead.insert(sequence, message);
        if next { Arrival::Next } else { Arrival::Ahead }
    }

    /// The next message in order.
    pub fn poll_deliver(&mut self) -> Option<Message> {
        let message = self.ahead.remove(&self.expected)?;
        self.ahead_bytes = self.ahead_bytes.saturating_sub(message.payload.len());
        self.expected = self.expected.checked_add(1)?;
        Some(message)
    }
}
