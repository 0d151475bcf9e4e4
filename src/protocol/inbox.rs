//! What was heard, put into order: each message is delivered once, and acknowledged as often as it comes.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::message::Message;

/// Messages kept ahead of a missing one. The far end resends one message in 100 ms, so that it takes a long gap to
/// reach this; beyond it messages are dropped unacknowledged and come again.
const AHEAD_MESSAGES_MAX: usize = 10_000;

/// What a message takes beside its payload, at most: its place in the map, whose nodes are half full at least, and an
/// allocation.
pub const MESSAGE_MEMORY_BYTES: usize = 256;

/// Memory of what is kept ahead of a missing message, as much as the multiplexer's own budget.
pub const AHEAD_BYTES_MAX: usize = 4 << 20;

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
#[derive(Debug)]
pub struct Inbox {
    expected: i64,
    ahead: BTreeMap<i64, Message>,
    ahead_bytes: usize,
    ahead_bytes_max: usize,
}

impl Default for Inbox {
    fn default() -> Self {
        Self {
            expected: 0,
            ahead: BTreeMap::new(),
            ahead_bytes: 0,
            ahead_bytes_max: AHEAD_BYTES_MAX,
        }
    }
}

impl Inbox {
    /// What is kept ahead of a missing message may take so much memory from now on.
    pub fn set_ahead_bytes_max(&mut self, bytes: usize) {
        self.ahead_bytes_max = bytes;
    }

    /// Memory of what is kept.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.ahead_bytes
    }

    /// Takes a data message.
    pub fn handle_message(&mut self, mut message: Message) -> Arrival {
        let sequence = message.sequence;
        if sequence < self.expected || self.ahead.contains_key(&sequence) {
            return Arrival::Duplicate;
        }
        let next = sequence == self.expected;
        let full = self.ahead.len() >= AHEAD_MESSAGES_MAX
            || self.ahead_bytes.saturating_add(memory(&message)) > self.ahead_bytes_max;
        if full && !next {
            return Arrival::Dropped;
        }
        if !next {
            // What waits for long must not keep the buffer that it was read into.
            message.payload = Bytes::copy_from_slice(&message.payload);
        }
        self.ahead_bytes += memory(&message);
        self.ahead.insert(sequence, message);
        if next { Arrival::Next } else { Arrival::Ahead }
    }

    /// The next message in order.
    pub fn poll_deliver(&mut self) -> Option<Message> {
        let message = self.ahead.remove(&self.expected)?;
        self.ahead_bytes = self.ahead_bytes.saturating_sub(memory(&message));
        self.expected = self.expected.checked_add(1)?;
        Some(message)
    }
}

fn memory(message: &Message) -> usize {
    MESSAGE_MEMORY_BYTES + message.payload.len()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::super::message::{MessageType, PayloadType};
    use super::*;

    fn message(sequence: i64, payload: Bytes) -> Message {
        Message {
            message_type: MessageType::OutputStreamData,
            created_ms: 1,
            sequence,
            flags: 0,
            message_id: Uuid::nil(),
            payload_type: PayloadType::Output,
            payload,
        }
    }

    fn numbered(sequence: i64) -> Message {
        message(sequence, sequence.to_be_bytes().to_vec().into())
    }

    /// Each of 0..n at least once, some several times, in any order.
    fn arrivals() -> impl Strategy<Value = (i64, Vec<i64>)> {
        (1..64_i64)
            .prop_flat_map(|count| (Just(count), vec(0..count, 0..64)))
            .prop_flat_map(|(count, again)| {
                let all: Vec<i64> = (0..count).chain(again).collect();
                (Just(count), Just(all).prop_shuffle())
            })
    }

    proptest! {
        #[test]
        fn messages_in_any_order_and_doubled_are_delivered_once_and_in_order(
            (count, arrivals) in arrivals(),
        ) {
            let mut inbox = Inbox::default();
            let mut delivered = Vec::new();
            let mut seen = std::collections::BTreeSet::new();
            for sequence in arrivals {
                let expected = i64::try_from(delivered.len()).expect("few");
                let arrival = inbox.handle_message(numbered(sequence));
                let right = match (seen.insert(sequence), sequence == expected) {
                    (false, _) => Arrival::Duplicate,
                    (true, true) => Arrival::Next,
                    (true, false) => Arrival::Ahead,
                };
                prop_assert_eq!(arrival, right);
                while let Some(message) = inbox.poll_deliver() {
                    prop_assert_eq!(&message, &numbered(message.sequence));
                    delivered.push(message.sequence);
                }
            }
            prop_assert_eq!(delivered, (0..count).collect::<Vec<_>>());
            prop_assert_eq!(inbox.ahead_bytes, 0);
        }
    }

    #[test]
    fn a_full_inbox_drops_what_is_ahead_and_still_takes_what_is_next() {
        let quarter = Bytes::from(vec![0; AHEAD_BYTES_MAX / 4 - MESSAGE_MEMORY_BYTES]);
        let mut inbox = Inbox::default();
        for sequence in 1..5 {
            assert_eq!(
                inbox.handle_message(message(sequence, quarter.clone())),
                Arrival::Ahead
            );
        }
        assert_eq!(inbox.handle_message(numbered(5)), Arrival::Dropped);
        assert_eq!(inbox.handle_message(numbered(4)), Arrival::Duplicate);
        assert_eq!(inbox.handle_message(message(0, quarter)), Arrival::Next);
        assert_eq!(std::iter::from_fn(|| inbox.poll_deliver()).count(), 5);
        assert_eq!(inbox.handle_message(numbered(5)), Arrival::Next);
    }

    #[test]
    fn messages_without_a_payload_take_memory_too() {
        let mut inbox = Inbox::default();
        inbox.set_ahead_bytes_max(10 * MESSAGE_MEMORY_BYTES);
        let arrivals = (1..100).map(|n| inbox.handle_message(message(n, Bytes::new())));
        let kept = arrivals.filter(|arrival| *arrival == Arrival::Ahead);
        assert_eq!(kept.count(), 10);
        assert_eq!(inbox.bytes(), 10 * MESSAGE_MEMORY_BYTES);
    }

    #[test]
    fn a_number_below_zero_was_here_before_and_the_largest_is_kept() {
        let mut inbox = Inbox::default();
        assert_eq!(inbox.handle_message(numbered(-1)), Arrival::Duplicate);
        assert_eq!(inbox.handle_message(numbered(i64::MIN)), Arrival::Duplicate);
        assert_eq!(inbox.handle_message(numbered(i64::MAX)), Arrival::Ahead);
        assert_eq!(inbox.poll_deliver(), None);
    }
}
