//! An agent with numbering, acknowledgement, resending and a multiplexer of its own, by the rules
//! that were read in the real one.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::wire::{self, Seen};

/// The agent looks at its oldest unacknowledged message this often, and sends it again when it is
/// older than the time-out.
const SCHEDULER_TICK: Duration = Duration::from_millis(100);
const RETRANSMISSION_TIMEOUT: Duration = Duration::from_millis(200);

/// Bytes of one Output payload.
const PAYLOAD_BYTES: usize = 1024;

/// What becomes of a stream.
#[derive(Clone, Debug)]
pub enum Destination {
    /// It says this, and closes when it has heard so many bytes.
    Answers {
        answer: Vec<u8>,
        closes_after: usize,
    },
    /// It refuses; the flag is sent before the FIN.
    RefusesFlagFirst,
    /// It refuses; the FIN is sent before the flag.
    RefusesFinFirst,
    /// It closes at once, without a word.
    Closes,
}

#[derive(Clone, Debug, Default)]
pub struct Flow {
    pub heard: Vec<u8>,
    pub client_finished: bool,
    closes_after: Option<usize>,
    finished: bool,
}

pub struct Agent {
    pub version: String,
    pub actions: Value,
    /// How long after HandshakeComplete data is rejected: not acknowledged when it is next, but
    /// acknowledged when it is ahead.
    pub deaf_for: Duration,
    pub destination: Box<dyn Fn(u32) -> Destination>,
    pub acknowledges: bool,
    /// Pause between two messages: what the real agent sleeps.
    pub pause: Duration,
    pub flows: BTreeMap<u32, Flow>,
    pub nops: Vec<Instant>,
    pub completed_at: Option<Instant>,
    /// Messages of the client that came, with every repetition.
    pub arrivals: Vec<(Instant, Seen)>,
    /// How often each of our messages was sent, and how often it was acknowledged.
    pub transmissions: BTreeMap<i64, u32>,
    pub acknowledged: BTreeMap<i64, u32>,
    expected: i64,
    ahead: BTreeMap<i64, Seen>,
    uplink: Vec<u8>,
    downlink: VecDeque<u8>,
    queue: VecDeque<(i64, Vec<u8>)>,
    unacked: BTreeMap<i64, (Vec<u8>, Instant)>,
    next: i64,
    salt: u64,
    tick_at: Instant,
    send_at: Instant,
}

impl Agent {
    pub fn new(now: Instant) -> Self {
        let properties = json!({"portNumber": "5432", "type": "LocalPortForwarding"});
        Self {
            version: "3.3.0.0".to_owned(),
            actions: json!([session_type("Port", &properties)]),
            deaf_for: Duration::from_millis(10),
            destination: Box::new(|_| Destination::Answers {
                answer: Vec::new(),
                closes_after: usize::MAX,
            }),
            acknowledges: true,
            pause: Duration::from_millis(1),
            flows: BTreeMap::new(),
            nops: Vec::new(),
            completed_at: None,
            arrivals: Vec::new(),
            transmissions: BTreeMap::new(),
            acknowledged: BTreeMap::new(),
            expected: 0,
            ahead: BTreeMap::new(),
            uplink: Vec::new(),
            downlink: VecDeque::new(),
            queue: VecDeque::new(),
            unacked: BTreeMap::new(),
            next: 0,
            salt: 0,
            tick_at: now,
            send_at: now,
        }
    }

    pub fn request_handshake(&mut self) {
        let request = json!({
            "AgentVersion": self.version,
            "RequestedClientActions": self.actions,
        });
        self.send(wire::HANDSHAKE_REQUEST, request.to_string().as_bytes());
    }

    /// Queues a data message.
    pub fn send(&mut self, payload_type: u32, payload: &[u8]) {
        self.salt += 1;
        let sequence = self.next;
        self.next += 1;
        let frame = wire::write(
            "output_stream_data",
            sequence,
            payload_type,
            self.salt,
            payload,
        );
        self.queue.push_back((sequence, frame));
    }

    /// Queues bytes of the multiplexer; they are cut into messages wherever they happen to be.
    pub fn say(&mut self, command: u8, stream: u32, data: &[u8]) {
        for chunk in data.chunks(30_000) {
            self.downlink.extend(wire::frame(command, stream, chunk));
        }
        if data.is_empty() {
            self.downlink.extend(wire::frame(command, stream, &[]));
        }
    }

    /// Whether all that was sent has been acknowledged.
    pub fn is_quiet(&self) -> bool {
        self.unacked.is_empty() && self.queue.is_empty() && self.downlink.is_empty()
    }

    /// Takes a message of the client; what it answers at once.
    pub fn handle(&mut self, frame: &[u8], now: Instant) -> Vec<Vec<u8>> {
        let seen = wire::read(frame);
        if seen.name == "acknowledge" {
            assert_eq!((seen.sequence, seen.flags, seen.payload_type), (0, 3, 0));
            let ack: Value = serde_json::from_slice(&seen.payload).expect("JSON");
            assert_eq!(ack["AcknowledgedMessageType"], "output_stream_data");
            let sequence = ack["AcknowledgedMessageSequenceNumber"]
                .as_i64()
                .expect("a number");
            assert!(
                self.transmissions.contains_key(&sequence),
                "it was never sent"
            );
            *self.acknowledged.entry(sequence).or_default() += 1;
            self.unacked.remove(&sequence);
            return Vec::new();
        }
        assert_eq!(seen.name, "input_stream_data");
        self.arrivals.push((now, seen.clone()));
        let mut acknowledged = Vec::new();
        if seen.sequence > self.expected {
            self.ahead.insert(seen.sequence, seen.clone());
            acknowledged.push(seen);
        } else if seen.sequence < self.expected {
            acknowledged.push(seen);
        } else if self.process(&seen, now) {
            acknowledged.push(seen);
            self.expected += 1;
            while let Some(next) = self.ahead.get(&self.expected).cloned() {
                if !self.process(&next, now) {
                    break;
                }
                self.ahead.remove(&self.expected);
                self.expected += 1;
            }
        }
        if !self.acknowledges {
            acknowledged.clear();
        }
        acknowledged
            .iter()
            .map(|seen| {
                self.salt += 1;
                wire::write_acknowledgement(seen, self.salt)
            })
            .collect()
    }

    /// The next message that is due.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Vec<u8>> {
        if now >= self.tick_at {
            self.tick_at = now + SCHEDULER_TICK;
            if let Some((&sequence, (frame, sent))) = self.unacked.iter_mut().next()
                && now.duration_since(*sent) > RETRANSMISSION_TIMEOUT
            {
                *sent = now;
                *self.transmissions.entry(sequence).or_default() += 1;
                return Some(frame.clone());
            }
        }
        if now < self.send_at {
            return None;
        }
        if self.queue.is_empty() && !self.downlink.is_empty() {
            let bytes = self.downlink.len().min(PAYLOAD_BYTES);
            let payload: Vec<u8> = self.downlink.drain(..bytes).collect();
            self.send(wire::OUTPUT, &payload);
        }
        let (sequence, frame) = self.queue.pop_front()?;
        self.send_at = now + self.pause;
        self.unacked.insert(sequence, (frame.clone(), now));
        *self.transmissions.entry(sequence).or_default() += 1;
        Some(frame)
    }

    /// When [`Self::poll_transmit`] may have something.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let resend = (!self.unacked.is_empty()).then_some(self.tick_at);
        let more = !self.queue.is_empty() || !self.downlink.is_empty();
        [resend, more.then_some(self.send_at)]
            .into_iter()
            .flatten()
            .min()
    }

    /// Whether the message was taken.
    fn process(&mut self, seen: &Seen, now: Instant) -> bool {
        match seen.payload_type {
            wire::HANDSHAKE_RESPONSE => {
                let response: Value = serde_json::from_slice(&seen.payload).expect("JSON");
                for action in response["ProcessedClientActions"]
                    .as_array()
                    .expect("a list")
                {
                    assert_eq!(action["ActionStatus"], 1, "{response}");
                }
                let complete = br#"{"HandshakeTimeToComplete":1000000,"CustomerMessage":""}"#;
                self.send(wire::HANDSHAKE_COMPLETE, complete);
                self.completed_at = Some(now);
                true
            }
            wire::OUTPUT => {
                let ready = self
                    .completed_at
                    .is_some_and(|at| now >= at + self.deaf_for);
                if ready {
                    self.uplink.extend(&seen.payload);
                    while let Some((command, stream, data)) = wire::take_frame(&mut self.uplink) {
                        self.handle_frame(command, stream, &data, now);
                    }
                }
                ready
            }
            other => panic!("a port session's client sends no payload of type {other}"),
        }
    }

    fn handle_frame(&mut self, command: u8, stream: u32, data: &[u8], now: Instant) {
        match command {
            wire::NOP => self.nops.push(now),
            wire::SYN => {
                let flow = Flow::default();
                assert!(
                    self.flows.insert(stream, flow).is_none(),
                    "stream {stream} is not new"
                );
                self.dial(stream);
            }
            wire::PSH => {
                let flow = self.flows.get_mut(&stream).expect("SYN comes first");
                assert!(!flow.client_finished, "data behind the FIN of {stream}");
                flow.heard.extend(data);
                self.close_if_done(stream);
            }
            wire::FIN => {
                let flow = self.flows.get_mut(&stream).expect("SYN comes first");
                assert!(!flow.client_finished, "a second FIN of {stream}");
                flow.client_finished = true;
            }
            other => panic!("command {other}"),
        }
    }

    fn dial(&mut self, stream: u32) {
        let refused = 3_u32.to_be_bytes();
        match (self.destination)(stream) {
            Destination::Answers {
                answer,
                closes_after,
            } => {
                if !answer.is_empty() {
                    self.say(wire::PSH, stream, &answer);
                }
                let flow = self.flows.get_mut(&stream).expect("it was just opened");
                flow.closes_after = Some(closes_after);
                self.close_if_done(stream);
            }
            Destination::RefusesFlagFirst => {
                self.send(wire::FLAG, &refused);
                self.say(wire::FIN, stream, &[]);
            }
            Destination::RefusesFinFirst => {
                self.send(wire::OUTPUT, &wire::frame(wire::FIN, stream, &[]));
                self.send(wire::FLAG, &refused);
            }
            Destination::Closes => self.say(wire::FIN, stream, &[]),
        }
    }

    fn close_if_done(&mut self, stream: u32) {
        let flow = self.flows.get_mut(&stream).expect("it is open");
        if !flow.finished
            && flow
                .closes_after
                .is_some_and(|bytes| flow.heard.len() >= bytes)
        {
            flow.finished = true;
            self.say(wire::FIN, stream, &[]);
        }
    }
}

/// The action that names a session's type.
pub fn session_type(name: &str, properties: &Value) -> Value {
    json!({
        "ActionType": "SessionType",
        "ActionParameters": {"SessionType": name, "Properties": properties},
    })
}
