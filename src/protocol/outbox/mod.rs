//! What was said and not yet acknowledged: nothing leaves it but by its acknowledgement.
//!
//! A message has its number and its place here before it is sent, so that a lost websocket loses nothing. Messages
//! are acknowledged one by one, in any order; the far end never asks for one again, so time alone tells that one
//! was lost. The far end also acknowledges as backpressure: it stays silent while its destination does not read.
//! Hence a silent peer is probed with the oldest message only, ever more rarely, and more is sent again only where
//! a later message overtook it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::memory::{queue_bytes, shrink};

/// Round-trip time assumed before the first measurement, as the real peers do.
const INITIAL_RTT: Duration = Duration::from_millis(100);

/// Retransmission time-out before the first measurement, as the real peers do.
const INITIAL_RTO: Duration = Duration::from_millis(200);

/// Bounds of the retransmission time-out: the variance never counts for less than a scheduler's tick, and a peer
/// that is there answers within a second.
const RTO_VARIANCE_MIN: Duration = Duration::from_millis(10);
const RTO_MAX: Duration = Duration::from_secs(1);

/// The longest pause between probes of a silent peer. It bounds how late a stalled stream goes on.
const PROBE_INTERVAL_MAX: Duration = Duration::from_secs(4);

/// Messages from the oldest unacknowledged one to the newest: as many as the agent keeps ahead of a missing one.
/// Acknowledged ones among them take no room but their place.
const SPAN_MESSAGES_MAX: usize = 100_000;

/// Unacknowledged messages of one direction, in order.
#[derive(Debug)]
pub struct Outbox {
    next_sequence: i64,
    unacked: VecDeque<Entry>,
    /// Sequence numbers to transmit, in order; those acknowledged meanwhile are passed over.
    pending: VecDeque<i64>,
    bytes: usize,
    bytes_max: usize,
    /// It was full, and is not yet relieved of an eighth: room is given for many messages at once, not for each that
    /// is acknowledged.
    full: bool,
    /// The largest sequence number acknowledged so far: all unacknowledged ones below it were overtaken.
    largest_acked: i64,
    /// How often the oldest message was sent again since the far end was last heard, on this websocket.
    probes: u32,
    /// When a message was last acknowledged for the first time.
    last_acked: Option<Instant>,
    rtt: RoundTrip,
}

#[derive(Debug)]
struct Entry {
    frame: Bytes,
    acked: bool,
    last_sent: Option<Instant>,
    transmissions: u32,
}

impl Outbox {
    /// An empty outbox for `bytes_max` bytes of encoded messages.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self {
            next_sequence: 0,
            unacked: VecDeque::new(),
            pending: VecDeque::new(),
            bytes: 0,
            bytes_max,
            full: false,
            largest_acked: -1,
            probes: 0,
            last_acked: None,
            rtt: RoundTrip::new(),
        }
    }

    /// The number that the next message gets.
    #[must_use]
    pub fn next_sequence(&self) -> i64 {
        self.next_sequence
    }

    /// Whether there is room for another message. It is asked before a message is made: one that exists is kept.
    #[must_use]
    pub fn has_room(&self) -> bool {
        !self.full && self.unacked.len() < SPAN_MESSAGES_MAX
    }

    /// Memory of the messages that are not acknowledged, and of the places of those among them that are.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.bytes + queue_bytes(&self.unacked) + queue_bytes(&self.pending)
    }

    /// Whether everything was acknowledged.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.unacked.is_empty()
    }

    /// Keeps the encoded message with the number [`Self::next_sequence`], and queues it for transmission.
    pub fn push(&mut self, frame: Bytes) {
        self.bytes += frame.len();
        self.full |= self.bytes >= self.bytes_max;
        self.pending.push_back(self.next_sequence);
        self.unacked.push_back(Entry {
            frame,
            acked: false,
            last_sent: None,
            transmissions: 0,
        });
        self.next_sequence += 1;
    }

    /// The far end has the message with this number. Unknown and repeated numbers change nothing.
    ///
    /// How long that took since the message was sent, if it was sent once: which of several transmissions was
    /// acknowledged can't be known, so they measure nothing.
    pub fn handle_acknowledge(&mut self, sequence: i64, now: Instant) -> Option<Duration> {
        let entry = self.entry_mut(sequence)?;
        // A message that was never sent can't have arrived.
        if entry.acked || entry.transmissions == 0 {
            return None;
        }
        entry.acked = true;
        let sent_once = entry.last_sent.filter(|_| entry.transmissions == 1);
        let round_trip = sent_once.map(|sent| now.saturating_duration_since(sent));
        let frame_bytes = std::mem::take(&mut entry.frame).len();
        self.bytes = self.bytes.saturating_sub(frame_bytes);
        self.full &= self.bytes > self.bytes_max / 8 * 7;
        match round_trip {
            Some(round_trip) => self.rtt.measure(round_trip),
            None => self.rtt.back_off(),
        }
        self.largest_acked = self.largest_acked.max(sequence);
        self.last_acked = Some(now);
        self.probes = 0;
        while self.unacked.front().is_some_and(|entry| entry.acked) {
            self.unacked.pop_front();
        }
        shrink(&mut self.unacked);
        round_trip
    }

    /// The websocket is new: everything unacknowledged is sent again, in order.
    pub fn handle_transport_opened(&mut self) {
        self.pending.clear();
        self.probes = 0;
        let base = self.base();
        for (sequence, entry) in (base..).zip(&mut self.unacked) {
            if !entry.acked {
                entry.last_sent = None;
                self.pending.push_back(sequence);
            }
        }
    }

    /// Queues again what has been waiting for too long.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.poll_timeout().is_none_or(|deadline| now < deadline) {
            return;
        }
        self.probes = self.probes.saturating_add(1);
        let (base, rto, largest_acked) = (self.base(), self.rtt.timeout(), self.largest_acked);
        for (sequence, entry) in (base..).zip(&mut self.unacked) {
            if sequence != base && sequence > largest_acked {
                break;
            }
            let overdue = entry.last_sent.is_some_and(|sent| now >= sent + rto);
            if overdue && !entry.acked {
                entry.last_sent = None;
                self.pending.push_back(sequence);
            }
        }
    }

    /// The next message to put on the wire.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Bytes> {
        while let Some(sequence) = self.pending.pop_front() {
            shrink(&mut self.pending);
            if let Some(entry) = self.entry_mut(sequence)
                && !entry.acked
            {
                entry.last_sent = Some(now);
                entry.transmissions = entry.transmissions.saturating_add(1);
                return Some(entry.frame.clone());
            }
        }
        None
    }

    /// When [`Self::handle_timeout`] is due: the oldest message's time-out, doubled with each probe.
    ///
    /// The far end takes messages in order, as fast as its destination reads. So the oldest one, unless it was
    /// overtaken, is not late while others are still being acknowledged: it has only now become the next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let head = self.unacked.front()?;
        let pause = self.rtt.timeout() * (1 << self.probes.min(8));
        let pause = pause.min(PROBE_INTERVAL_MAX);
        let turn = self.last_acked.filter(|_| self.base() > self.largest_acked);
        head.last_sent
            .map(|sent| turn.map_or(sent, |turn| sent.max(turn)) + pause)
    }

    /// The number of the oldest unacknowledged message.
    fn base(&self) -> i64 {
        self.next_sequence - i64::try_from(self.unacked.len()).unwrap_or(i64::MAX)
    }

    fn entry_mut(&mut self, sequence: i64) -> Option<&mut Entry> {
        let index = usize::try_from(sequence.checked_sub(self.base())?).ok()?;
        self.unacked.get_mut(index)
    }
}

/// The estimate of the round-trip time that both real peers use.
#[derive(Debug)]
struct RoundTrip {
    smoothed: Duration,
    variance: Duration,
    timeout: Duration,
}

impl RoundTrip {
    fn new() -> Self {
        Self {
            smoothed: INITIAL_RTT,
            variance: Duration::ZERO,
            timeout: INITIAL_RTO,
        }
    }

    fn timeout(&self) -> Duration {
        self.timeout
    }

    /// What was sent twice may have been sent again too soon: whoever is further away than the time-out would never be
    /// measured, and would be sent everything twice. The next measurement makes good for it.
    fn back_off(&mut self) {
        self.timeout = (self.timeout * 2).min(RTO_MAX);
    }

    fn measure(&mut self, sample: Duration) {
        self.variance = self.variance * 3 / 4 + self.smoothed.abs_diff(sample) / 4;
        self.smoothed = self.smoothed * 7 / 8 + sample / 8;
        self.timeout = (self.smoothed + RTO_VARIANCE_MIN.max(self.variance * 4)).min(RTO_MAX);
    }
}

#[cfg(test)]
mod tests;
