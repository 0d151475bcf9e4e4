//! The count, and what it counts: whoever comes when, and whatever goes through a session.

use std::time::{Duration, Instant};

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::protocol::message::{Message, MessageType, PayloadType};
use crate::protocol::mux::frame::{Command, Header};
use crate::protocol::payload::Acknowledgement;
use crate::protocol::{Config, Limits, PortSession, Read};

const MIB: usize = 1 << 20;

fn budget(bytes_max: usize) -> Arc<Budget> {
    Arc::new(Budget::new(bytes_max, &Metrics::default()))
}

/// Takes in steps for as long as there is memory to spare; what it keeps in the end.
fn fill(share: &mut Share, mut held: usize, step: usize) -> usize {
    while !share.settle(held) {
        held += step;
    }
    held
}

#[test]
fn one_session_keeps_half_of_what_is_beyond_the_least_of_all() {
    let mut share = budget(150 * MIB).share();
    let held = fill(&mut share, 0, 1024);
    assert_eq!(held, SESSION_BYTES_MIN + 25 * MIB);
}

#[test]
fn equals_keep_the_same_and_leave_as_much_to_whoever_comes() {
    let budget = budget(150 * MIB);
    let mut shares: Vec<_> = (0..9).map(|_| (budget.share(), 0)).collect();
    // All take in turns, until none may.
    for _ in 0..10_000 {
        for (share, held) in &mut shares {
            if !share.settle(*held) {
                *held += 1024;
            }
        }
    }
    let each = SESSION_BYTES_MIN + 50 * MIB / 10;
    for (_, held) in &shares {
        assert!(held.abs_diff(each) < MIB, "{held} of {each}");
    }
    let held = fill(&mut budget.share(), 0, 1024);
    assert!(held > each / 2, "{held} of {each}");
}

#[test]
fn a_session_is_frugal_until_it_is_well_below_what_it_may_keep() {
    let budget = budget(150 * MIB);
    let (mut one, mut other) = (budget.share(), budget.share());
    assert!(!other.settle(SESSION_BYTES_MIN + 20 * MIB));
    assert!(!one.settle(SESSION_BYTES_MIN + 14 * MIB));
    assert!(one.settle(SESSION_BYTES_MIN + 15 * MIB));
    assert!(
        one.settle(SESSION_BYTES_MIN + 15 * MIB - 1024),
        "not at once"
    );
    assert!(!one.settle(SESSION_BYTES_MIN + 14 * MIB));
}

#[test]
fn a_session_that_ends_gives_back_what_it_kept() {
    let budget = budget(150 * MIB);
    let (mut one, mut other) = (budget.share(), budget.share());
    one.settle(60 * MIB);
    assert!(other.settle(0), "nothing is left");
    drop(one);
    assert!(!other.settle(0));
    assert_eq!(budget.held.get(), 0);
    assert_eq!(budget.excess.load(Ordering::Relaxed), 0);
}

proptest! {
    /// Each takes a step where it has memory to spare, or keeps less than the least; gives back; or ends.
    #[test]
    fn the_limit_holds_whoever_comes_when(
        turns in vec((0..40_usize, 0..10_u8), 1..4000),
    ) {
        const LIMIT: usize = 3 * (SESSIONS_MAX * SESSION_BYTES_MIN / 2);
        const SESSIONS_MAX: usize = 32;
        // A turn ends behind the message that makes it one.
            const STEP: usize = TURN_BYTES_MAX + MESSAGE_BYTES_MAX;
        prop_assert_eq!(sessions_max(LIMIT), SESSIONS_MAX);
        let budget = budget(LIMIT);
        let mut sessions: Vec<(Share, usize)> = Vec::new();
        for (index, what) in turns {
            let full = sessions.len() == SESSIONS_MAX;
            match sessions.get_mut(index) {
                None if full => {}
                None => sessions.push((budget.share(), 0)),
                Some(_) if what == 0 => drop(sessions.swap_remove(index)),
                Some((share, held)) => {
                    if what == 1 {
                        *held /= 2;
                    }
                    let frugal = share.settle(*held);
                    if !frugal || *held + STEP <= SESSION_BYTES_MIN {
                        *held += STEP;
                        share.settle(*held);
                    }
                }
            }
            prop_assert!(budget.held.get() <= signed(LIMIT + STEP));
            let sum: usize = sessions.iter().map(|(_, held)| held).sum();
            prop_assert_eq!(budget.held.get(), signed(sum));
        }
    }
}

const STREAMS: u32 = 40;

/// What happens to a session.
#[derive(Clone, Debug)]
enum Step {
    /// A message comes, so many numbers ahead of the next, with so many bytes for each of these streams.
    Data(i64, Vec<(u32, usize)>),
    /// A message of ours, of those that are not acknowledged, is.
    Acknowledge(usize),
    /// A client says so much, if it is taken.
    Write(u32, usize),
    Read(u32),
    /// The websocket takes so many messages.
    Transmit(usize),
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let stream = || (0..STREAMS).prop_map(|n| 3 + 2 * n);
    let sizes = prop_oneof![3 => 1..40_usize, 3 => 500..3000_usize, 1 => 1..65_536_usize];
    let ahead = prop_oneof![4 => Just(0), 1 => 1..500_i64];
    prop_oneof![
        6 => (ahead, vec((stream(), sizes), 1..60)).prop_map(|(ahead, frames)| Step::Data(ahead, frames)),
        2 => (0..100_usize).prop_map(Step::Acknowledge),
        6 => (stream(), 1..32_769_usize).prop_map(|(id, bytes)| Step::Write(id, bytes)),
        3 => stream().prop_map(Step::Read),
        2 => (0..300_usize).prop_map(Step::Transmit),
        1 => Just(Step::Reopen),
    ]
}

/// A session without memory to spare, and the far end of it.
struct Frugal {
    session: PortSession,
    now: Instant,
    next: i64,
    unacknowledged: Vec<(Uuid, i64)>,
}

impl Frugal {
    fn new() -> Self {
        let now = Instant::now();
        let config = Config {
            origin: now,
            epoch_ms: 1,
            seed: 1,
            outbox_bytes_max: 1 << 20,
        };
        let limits = Limits {
            streams_max: 256,
            stall_limit: Duration::from_hours(1),
        };
        let mut session = PortSession::new(config, limits);
        session.handle_transport_opened();
        session.set_frugal(true, now);
        let mut frugal = Self {
            session,
            now,
            next: 0,
            unacknowledged: Vec::new(),
        };
        let request = r#"{"AgentVersion":"3.3.1142.0","RequestedClientActions":[{"ActionType":"SessionType",
            "ActionParameters":{"SessionType":"Port","Properties":{"type":"LocalPortForwarding"}}}]}"#;
        frugal.hear(0, PayloadType::HandshakeRequest, request.into());
        frugal.transmit(usize::MAX);
        frugal.hear(0, PayloadType::HandshakeComplete, "{}".into());
        frugal.now += Duration::from_secs(1);
        frugal.session.handle_timeout(frugal.now);
        for _ in 0..STREAMS {
            assert!(frugal.session.open().is_some());
        }
        frugal
    }

    fn hear(&mut self, ahead: i64, payload_type: PayloadType, payload: Bytes) {
        let message = Message {
            message_type: MessageType::OutputStreamData,
            created_ms: 1,
            sequence: self.next + ahead,
            flags: 0,
            message_id: Uuid::nil(),
            payload_type,
            payload,
        };
        self.next += i64::from(ahead == 0);
        self.session.handle_message(&message.encode(), self.now);
    }

    fn transmit(&mut self, messages: usize) {
        for _ in 0..messages {
            let Some(message) = self.session.poll_transmit(self.now) else {
                break;
            };
            let message = Message::decode(&message).expect("ours");
            if message.message_type == MessageType::InputStreamData {
                let sent = (message.message_id, message.sequence);
                self.unacknowledged.push(sent);
            }
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Data(ahead, frames) => {
                let mut payload = Vec::new();
                for (stream, bytes) in frames {
                    let header = Header {
                        command: Command::Push,
                        length: u16::try_from(bytes).expect("a frame's"),
                        stream,
                    };
                    if payload.len() + bytes + 200 <= MESSAGE_BYTES_MAX {
                        payload.extend(header.encode());
                        payload.resize(payload.len() + bytes, 7);
                    }
                }
                if self.session.wants_to_read() {
                    self.hear(ahead, PayloadType::Output, payload.into());
                }
            }
            Step::Acknowledge(which) if which < self.unacknowledged.len() => {
                let (id, sequence) = self.unacknowledged.swap_remove(which);
                let payload = Acknowledgement::of(MessageType::InputStreamData, id, sequence);
                let message = Message {
                    message_type: MessageType::Acknowledge,
                    created_ms: 1,
                    sequence: 0,
                    flags: 3,
                    message_id: Uuid::nil(),
                    payload_type: PayloadType::None,
                    payload: serde_json::to_vec(&payload).expect("JSON").into(),
                };
                self.session.handle_message(&message.encode(), self.now);
            }
            Step::Acknowledge(_) => {}
            Step::Write(id, bytes) => {
                let room = self.session.room(id).expect("it is open");
                self.session.write(id, &vec![7; bytes.min(room)]);
            }
            Step::Read(id) => {
                assert!(matches!(
                    self.session.read(id, 64 << 10),
                    Read::Bytes(_) | Read::Pending
                ));
            }
            Step::Transmit(messages) => self.transmit(messages),
            Step::Reopen => {
                self.session.handle_transport_lost();
                self.session.handle_transport_opened();
            }
        }
        while self.session.poll_event().is_some() {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn whatever_goes_through_a_frugal_session_it_keeps_no_more_than_the_least(
        steps in vec(step(), 1..400),
    ) {
        let mut frugal = Frugal::new();
        for step in steps {
            let shown = format!("{step:?}");
            frugal.take(step);
            let held = frugal.session.memory();
            prop_assert!(held.bytes() <= SESSION_BYTES_MIN, "{:?} after {}", held, shown);
            prop_assert!(held.outgoing <= OUTGOING_BYTES + ACKNOWLEDGEMENTS_BYTES, "{:?}", held);
            prop_assert!(held.incoming <= UNREAD_BYTES + FRUGAL_AHEAD_BYTES, "{:?}", held);
        }
    }
}
