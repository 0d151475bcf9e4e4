//! What the agent sends on a data channel: numbering, messages that wait for their acknowledgement,
//! retransmission by the agent's own timer.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use uuid::Uuid;

use crate::protocol::message::{FLAG_SYN, FLAGS_CONTROL, Message, MessageType, PayloadType};
use crate::protocol::payload::Acknowledgement;

/// Bytes without acknowledgement at which the agent reads its multiplexer no further. The real one has
/// no window and keeps 100,000 messages of 1024 bytes, which is about as much.
const UNACKNOWLEDGED_BYTES_MAX: usize = 64 << 20;

/// Frames that wait for the websocket; whoever sends waits at the bound.
pub(super) const QUEUE_FRAMES_MAX: usize = 256;

/// Bounds and start of the retransmission timeout, as in the agent.
const RTO_FIRST: Duration = Duration::from_millis(200);
const RTO_MAX: Duration = Duration::from_secs(1);
const ROUND_TRIP_FIRST: Duration = Duration::from_millis(100);
const CLOCK_GRANULARITY: Duration = Duration::from_millis(10);

/// Now, as messages give it; never 0, which receivers reject.
fn created_ms() -> u64 {
    u64::try_from(Timestamp::now().as_millisecond()).unwrap_or(1)
}

/// A message that is not numbered.
pub(super) fn control_message(
    message_type: MessageType,
    message_id: Uuid,
    payload: &impl Serialize,
) -> Bytes {
    let message = Message {
        message_type,
        created_ms: created_ms(),
        sequence: 0,
        flags: FLAGS_CONTROL,
        message_id,
        payload_type: PayloadType::None,
        payload: serde_json::to_vec(payload).unwrap_or_default().into(),
    };
    message.encode()
}

struct Unacknowledged {
    frame: Bytes,
    sent: Instant,
}

struct Numbering {
    next: i64,
    waiting: BTreeMap<i64, Unacknowledged>,
    waiting_bytes: usize,
    round_trip: Duration,
    variation: Duration,
    timeout: Duration,
}

/// What the agent sends on one data channel. It outlives the websockets.
pub(super) struct Outgoing {
    queue: mpsc::Sender<Bytes>,
    numbering: Mutex<Numbering>,
    /// Bytes that wait for an acknowledgement.
    backlog: watch::Sender<usize>,
    paused: watch::Sender<bool>,
}

impl Outgoing {
    /// Frames go into `queue`, for the websocket to take out.
    pub(super) fn new(queue: mpsc::Sender<Bytes>) -> Self {
        let numbering = Numbering {
            next: 0,
            waiting: BTreeMap::new(),
            waiting_bytes: 0,
            round_trip: ROUND_TRIP_FIRST,
            variation: Duration::ZERO,
            timeout: RTO_FIRST,
        };
        Self {
            queue,
            numbering: Mutex::new(numbering),
            backlog: watch::Sender::new(0),
            paused: watch::Sender::new(false),
        }
    }

    fn numbering(&self) -> MutexGuard<'_, Numbering> {
        self.numbering
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Numbers a message, keeps it, and hands it to the websocket as soon as that has room.
    pub(super) async fn send(&self, payload_type: PayloadType, payload: Bytes) {
        let frame = {
            let mut numbering = self.numbering();
            let sequence = numbering.next;
            numbering.next += 1;
            let message = Message {
                message_type: MessageType::OutputStreamData,
                created_ms: created_ms(),
                sequence,
                flags: if sequence == 0 { FLAG_SYN } else { 0 },
                message_id: Uuid::new_v4(),
                payload_type,
                payload,
            };
            let frame = message.encode();
            let kept = Unacknowledged {
                frame: frame.clone(),
                sent: Instant::now(),
            };
            numbering.waiting.insert(sequence, kept);
            numbering.waiting_bytes += frame.len();
            self.backlog.send_replace(numbering.waiting_bytes);
            frame
        };
        // The queue is gone when the session has ended; then nobody waits for the frame.
        let _ = self.queue.send(frame).await;
    }

    /// Sends a payload of JSON.
    pub(super) async fn send_json(&self, payload_type: PayloadType, payload: &impl Serialize) {
        let payload = serde_json::to_vec(payload).unwrap_or_default();
        self.send(payload_type, payload.into()).await;
    }

    /// Waits until more may be read for the client: not paused, and not too much on the way.
    pub(super) async fn ready(&self) {
        // Neither fails: the senders live in `self`.
        let _ = self.paused.subscribe().wait_for(|paused| !paused).await;
        let _ = self
            .backlog
            .subscribe()
            .wait_for(|b| *b < UNACKNOWLEDGED_BYTES_MAX)
            .await;
    }

    /// Waits until everything is acknowledged.
    pub(super) async fn drained(&self) {
        let _ = self.backlog.subscribe().wait_for(|bytes| *bytes == 0).await;
    }

    /// Acknowledges a message of the client.
    pub(super) async fn acknowledge(&self, message: &Message) {
        let payload =
            Acknowledgement::of(message.message_type, message.message_id, message.sequence);
        let frame = control_message(MessageType::Acknowledge, Uuid::new_v4(), &payload);
        let _ = self.queue.send(frame).await;
    }

    /// The client is away (true) or has shown that it is there.
    pub(super) fn pause(&self, paused: bool) {
        self.paused
            .send_if_modified(|was| std::mem::replace(was, paused) != paused);
    }

    /// The client has acknowledged a message. Every acknowledgement counts for the round trip, those
    /// of retransmitted messages too.
    pub(super) fn handle_acknowledgement(&self, payload: &[u8]) {
        let Ok(acknowledgement) = serde_json::from_slice::<Acknowledgement>(payload) else {
            tracing::debug!("an acknowledgement is not understood and ignored");
            return;
        };
        let mut numbering = self.numbering();
        let sequence = acknowledgement.acknowledged_message_sequence_number;
        let Some(known) = numbering.waiting.remove(&sequence) else {
            return;
        };
        let measured = known.sent.elapsed();
        let deviation = numbering.round_trip.abs_diff(measured);
        numbering.variation = numbering.variation * 3 / 4 + deviation / 4;
        numbering.round_trip = numbering.round_trip * 7 / 8 + measured / 8;
        let margin = CLOCK_GRANULARITY.max(numbering.variation * 4);
        numbering.timeout = RTO_MAX.min(numbering.round_trip + margin);
        numbering.waiting_bytes -= known.frame.len();
        self.backlog.send_replace(numbering.waiting_bytes);
    }

    /// The oldest message without acknowledgement, when it is due to be sent again.
    pub(super) fn due(&self) -> Option<Bytes> {
        if *self.paused.borrow() {
            return None;
        }
        let mut numbering = self.numbering();
        let timeout = numbering.timeout;
        let mut oldest = numbering.waiting.first_entry()?;
        if oldest.get().sent.elapsed() <= timeout {
            return None;
        }
        oldest.get_mut().sent = Instant::now();
        Some(oldest.get().frame.clone())
    }
}
