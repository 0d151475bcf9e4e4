//! Acknowledgements that wait for a websocket, and those that it may have lost.

use std::collections::VecDeque;

use uuid::Uuid;

use crate::protocol::memory::{queue_bytes, shrink};

/// Acknowledgements that wait for the websocket. Past it they are dropped: the far end sends again, and we
/// acknowledge again.
pub(super) const ACKNOWLEDGEMENTS_MAX: usize = 16_384;

/// Acknowledgements said again on a new websocket. Those in flight when the old one died are lost, and the agent,
/// which recovers one message in 100 ms, would spend its time on messages that are here.
const ACKNOWLEDGEMENTS_REPEATED: usize = 1024;

/// Acknowledgements of what has come, by the id and the number of each message.
#[derive(Debug)]
pub(super) struct Acknowledgements {
    waiting: VecDeque<(Uuid, i64)>,
    waiting_max: usize,
    /// The last that were handed to a websocket.
    said: VecDeque<(Uuid, i64)>,
}

impl Default for Acknowledgements {
    fn default() -> Self {
        Self {
            waiting: VecDeque::new(),
            waiting_max: ACKNOWLEDGEMENTS_MAX,
            said: VecDeque::new(),
        }
    }
}

impl Acknowledgements {
    /// So many may wait from now on.
    pub(super) fn set_waiting_max(&mut self, count: usize) {
        self.waiting_max = count;
    }

    /// Memory of those that wait. Those that were said take 24 KiB at most in every session, whatever comes.
    pub(super) fn memory_bytes(&self) -> usize {
        queue_bytes(&self.waiting)
    }

    pub(super) fn push(&mut self, message_id: Uuid, sequence: i64) {
        if self.waiting.len() < self.waiting_max {
            self.waiting.push_back((message_id, sequence));
        }
    }

    /// The websocket is new: what the last one may have lost is said again, before what waits.
    pub(super) fn handle_transport_opened(&mut self) {
        // In their order.
        while let Some(said) = self.said.pop_back() {
            self.waiting.push_front(said);
        }
    }

    /// The next for the websocket.
    pub(super) fn poll_transmit(&mut self) -> Option<(Uuid, i64)> {
        let next = self.waiting.pop_front()?;
        shrink(&mut self.waiting);
        if self.said.len() == ACKNOWLEDGEMENTS_REPEATED {
            self.said.pop_front();
        }
        self.said.push_back(next);
        Some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_bounded_counted_and_given_back() {
        let mut acknowledgements = Acknowledgements::default();
        for sequence in 0..2 * 16_384 {
            acknowledgements.push(Uuid::nil(), sequence);
        }
        assert!(acknowledgements.memory_bytes() >= 16_384 * 24);
        let said = std::iter::from_fn(|| acknowledgements.poll_transmit());
        assert_eq!(said.count(), 16_384);
        assert_eq!(acknowledgements.memory_bytes(), 0);
        acknowledgements.set_waiting_max(10);
        for sequence in 0..100 {
            acknowledgements.push(Uuid::nil(), sequence);
        }
        let said = std::iter::from_fn(|| acknowledgements.poll_transmit());
        assert_eq!(said.count(), 10);
    }
}
