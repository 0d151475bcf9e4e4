//! A port session, an agent, clients, and the network between them, on a clock of their own.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use fastrand::Rng;
use ssm_session_operator::protocol::{Config, Event, Limits, PortSession, Read, StreamId};

use crate::agent::Agent;

pub const STALL_LIMIT: Duration = Duration::from_secs(30);

/// Streams at once.
pub const STREAMS_MAX: usize = 256;

const LIMITS: Limits = Limits {
    streams_max: STREAMS_MAX,
    stall_limit: STALL_LIMIT,
};
pub const OUTBOX_BYTES: usize = 1 << 20;

/// What the network does to a message, in either direction.
#[derive(Clone, Copy, Debug)]
pub struct Faults {
    pub loss: f64,
    pub duplication: f64,
    /// Each message takes between these; apart, they reorder.
    pub delay_ms: (u64, u64),
}

pub const PERFECT: Faults = Faults {
    loss: 0.0,
    duplication: 0.0,
    delay_ms: (5, 5),
};

/// A client of one stream.
#[derive(Debug, Default)]
pub struct Client {
    pub upload: VecDeque<u8>,
    pub finishes: bool,
    pub pauses: bool,
    pub heard: Vec<u8>,
    /// What reading said last, when that was not bytes.
    pub end: Option<Read>,
    finished: bool,
}

pub struct World {
    pub start: Instant,
    pub now: Instant,
    pub session: PortSession,
    pub agent: Agent,
    pub faults: Faults,
    pub clients: BTreeMap<StreamId, Client>,
    pub events: Vec<(Instant, Event)>,
    /// All that the session has sent.
    pub sent: Vec<(Instant, Bytes)>,
    pub connected: bool,
    rng: Rng,
    up: Link,
    down: Link,
    /// Messages that have come and that the session does not want to read yet.
    pub socket: VecDeque<Bytes>,
}

impl World {
    /// A world whose websocket is open and whose agent has asked for the handshake.
    pub fn new(faults: Faults, seed: u64, prepare: impl FnOnce(&mut Agent)) -> Self {
        let start = Instant::now();
        let config = Config {
            origin: start,
            epoch_ms: 1_700_000_000_000,
            seed,
            outbox_bytes_max: OUTBOX_BYTES,
        };
        let mut agent = Agent::new(start);
        prepare(&mut agent);
        agent.request_handshake();
        let mut session = PortSession::new(config, LIMITS);
        session.handle_transport_opened();
        Self {
            start,
            now: start,
            session,
            agent,
            faults,
            clients: BTreeMap::new(),
            events: Vec::new(),
            sent: Vec::new(),
            connected: true,
            rng: Rng::with_seed(seed),
            up: Link::default(),
            down: Link::default(),
            socket: VecDeque::new(),
        }
    }

    /// Opens a stream for a client with something to say.
    pub fn connect(&mut self, upload: &[u8]) -> StreamId {
        let id = self.session.open().expect("the session is alive");
        let upload = upload.iter().copied().collect();
        self.clients.insert(
            id,
            Client {
                upload,
                ..Client::default()
            },
        );
        id
    }

    /// The websocket is gone, with all that was on its way.
    pub fn lose_transport(&mut self) {
        self.connected = false;
        self.up = Link::default();
        self.down = Link::default();
        self.socket.clear();
        self.session.handle_transport_lost();
    }

    pub fn open_transport(&mut self) {
        self.connected = true;
        self.session.handle_transport_opened();
    }

    /// Hands a message to the session as it is.
    pub fn deliver(&mut self, message: Vec<u8>) {
        self.session.handle_message(&message.into(), self.now);
        self.settle();
    }

    pub fn happened(&self, wanted: impl Fn(&Event) -> bool) -> bool {
        self.events.iter().any(|(_, event)| wanted(event))
    }

    /// Lets time pass.
    pub fn run_for(&mut self, time: Duration) {
        let until = self.now + time;
        self.settle();
        while let Some(next) = self.next_instant().filter(|next| *next <= until) {
            self.step(next);
        }
        self.now = until;
        self.settle();
    }

    /// Lets time pass until `done`; panics when that takes longer than `limit` of virtual time.
    pub fn run_until(&mut self, what: &str, limit: Duration, done: impl Fn(&Self) -> bool) {
        let until = self.now + limit;
        self.settle();
        while !done(self) {
            match self.next_instant().filter(|next| *next <= until) {
                Some(next) => self.step(next),
                None => panic!("not within {limit:?}: {what}; {:?}", self.clients),
            }
        }
    }

    fn next_instant(&self) -> Option<Instant> {
        [
            self.session.poll_timeout(),
            self.agent.poll_timeout(),
            self.up.next(),
            self.down.next(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    fn step(&mut self, next: Instant) {
        // A deadline of the past is due now.
        self.now = self.now.max(next);
        if self.session.poll_timeout().is_some_and(|at| at <= self.now) {
            self.session.handle_timeout(self.now);
            let again = self.session.poll_timeout();
            let before = self.sent.len();
            self.settle();
            assert!(
                again.is_none_or(|at| at > self.now) || self.sent.len() > before,
                "a deadline that is never met: {again:?}"
            );
        }
        while let Some(message) = self.up.pop(self.now) {
            for answer in self.agent.handle(&message, self.now) {
                self.down(answer.into());
            }
        }
        while let Some(message) = self.down.pop(self.now) {
            self.socket.push_back(message);
        }
        self.settle();
    }

    /// All that can happen without time passing.
    fn settle(&mut self) {
        loop {
            let mut quiet = true;
            while self.session.wants_to_read()
                && let Some(message) = self.socket.pop_front()
            {
                self.session.handle_message(&message, self.now);
                quiet = false;
            }
            quiet &= !self.serve_clients();
            while self.connected
                && let Some(message) = self.session.poll_transmit(self.now)
            {
                quiet = false;
                self.sent.push((self.now, message.clone()));
                let (now, faults) = (self.now, self.faults);
                self.up.send(&message, now, faults, &mut self.rng);
            }
            while let Some(event) = self.session.poll_event() {
                quiet = false;
                self.events.push((self.now, event));
            }
            while let Some(message) = self.agent.poll_transmit(self.now) {
                quiet = false;
                self.down(message.into());
            }
            if quiet {
                return;
            }
        }
    }

    fn serve_clients(&mut self) -> bool {
        let mut busy = false;
        for (id, client) in &mut self.clients {
            let (upload, _) = client.upload.as_slices();
            let room = self.session.room(*id).unwrap_or(0).min(upload.len());
            let written = self.session.write(*id, &upload[..room]).unwrap_or(0);
            client.upload.drain(..written);
            if client.finishes && client.upload.is_empty() && !client.finished {
                client.finished = true;
                self.session.finish(*id);
            }
            busy |= written > 0;
            while !client.pauses && client.end.is_none() {
                match self.session.read(*id, 4096) {
                    Read::Bytes(bytes) => {
                        busy = true;
                        client.heard.extend(&bytes);
                    }
                    Read::Pending => break,
                    end @ (Read::Finished | Read::Reset(_)) => client.end = Some(end),
                }
            }
        }
        busy
    }

    fn down(&mut self, message: Bytes) {
        if self.connected {
            let (now, faults) = (self.now, self.faults);
            self.down.send(&message, now, faults, &mut self.rng);
        }
    }
}

/// One direction of the network.
#[derive(Default)]
struct Link {
    travelling: BTreeMap<(Instant, u64), Bytes>,
    count: u64,
}

impl Link {
    fn send(&mut self, message: &Bytes, now: Instant, faults: Faults, rng: &mut Rng) {
        if rng.f64() < faults.loss {
            return;
        }
        let copies = if rng.f64() < faults.duplication { 2 } else { 1 };
        for _ in 0..copies {
            let (least, most) = faults.delay_ms;
            let delay = Duration::from_millis(rng.u64(least..=most));
            self.count += 1;
            self.travelling
                .insert((now + delay, self.count), message.clone());
        }
    }

    fn next(&self) -> Option<Instant> {
        self.travelling.keys().next().map(|(at, _)| *at)
    }

    fn pop(&mut self, now: Instant) -> Option<Bytes> {
        let entry = self
            .travelling
            .first_entry()
            .filter(|entry| entry.key().0 <= now)?;
        Some(entry.remove())
    }
}

/// Bytes that repeat nowhere soon, so that a misplaced piece shows.
pub fn noise(bytes: usize, seed: u64) -> Vec<u8> {
    let mut noise = vec![0; bytes];
    Rng::with_seed(seed).fill(&mut noise);
    noise
}
