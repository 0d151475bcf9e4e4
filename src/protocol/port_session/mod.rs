//! A port session: the multiplexer over a data channel, and what becomes of each stream.
//!
//! This is the machine that a tunnel drives: messages and `now` in, messages, events and a deadline out.

mod event;

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::protocol::data_channel::{self, Config, DataChannel, End};
use crate::protocol::memory::{FRUGAL_SEND_BYTES, FRUGAL_UNREAD_BYTES, Memory};
use crate::protocol::mux::frame::StreamId;
use crate::protocol::mux::multiplexer::{Multiplexer, RECEIVE_BYTES_MAX, StreamEvent};
use crate::protocol::mux::stream::Stream;
pub use event::{Event, Limits, Read, ResetCause};

/// Bytes of one Output payload: what both real peers send. What more the gateway takes is not known.
const UPLINK_PAYLOAD_BYTES: usize = 1024;

/// How often an agent that wants keepalives hears one; it gives up after three times as long.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// How long a stream that was closed without a byte waits for the word that its destination refused, and that word
/// for its stream: the agent sends both, by two ways that may overtake each other.
const REFUSAL_WINDOW: Duration = Duration::from_millis(100);

/// The machine.
#[derive(Debug)]
pub struct PortSession {
    channel: DataChannel,
    mux: Multiplexer,
    limits: Limits,
    frugal: bool,
    keepalive_at: Option<Instant>,
    /// When the first data may go, until it may.
    first_data_at: Option<Instant>,
    /// Streams that were closed without a byte, and until when that may still turn out to be a refusal.
    doubtful: VecDeque<(StreamId, Instant)>,
    /// Until when each refusal whose stream is not known yet waits for it.
    refusals: VecDeque<Instant>,
    resets: HashMap<StreamId, ResetCause>,
    /// Since when there are several streams, so that one can keep others waiting.
    shared_since: Option<Instant>,
    events: VecDeque<Event>,
    ended: bool,
}

impl PortSession {
    /// A session that awaits the agent's handshake.
    #[must_use]
    pub fn new(config: Config, limits: Limits) -> Self {
        Self {
            channel: DataChannel::new(config),
            mux: Multiplexer::default(),
            limits,
            frugal: false,
            keepalive_at: None,
            first_data_at: None,
            doubtful: VecDeque::new(),
            refusals: VecDeque::new(),
            resets: HashMap::new(),
            shared_since: None,
            events: VecDeque::new(),
            ended: false,
        }
    }

    /// Whether there is a place for another stream.
    #[must_use]
    pub fn has_place(&self) -> bool {
        self.mux.streams().len() < self.limits.streams_max
    }

    /// Opens a stream: the agent will dial the destination. `None` after the end, and while there are too many.
    pub fn open(&mut self) -> Option<StreamId> {
        if !self.is_shared() {
            self.shared_since = None;
        }
        if self.ended || !self.has_place() {
            return None;
        }
        let id = self.mux.open();
        if id.is_none() {
            self.end(End::Closed("its stream ids are used up".to_owned()));
        }
        id
    }

    /// Whether a stream has bytes that were not sent.
    #[must_use]
    pub fn has_unsent(&self, id: StreamId) -> bool {
        let stream = self.mux.stream(id);
        stream.is_some_and(|stream| stream.pending().data_bytes > 0)
    }

    /// When bytes of a stream were last sent.
    #[must_use]
    pub fn last_sent(&self, id: StreamId) -> Option<Instant> {
        self.mux.stream(id)?.last_sent()
    }

    /// Whether a stream has bytes of which [`Self::poll_transmit`] is still to hear: who writes more of them need not
    /// ask for it again.
    #[must_use]
    pub fn is_queued(&self, id: StreamId) -> bool {
        self.mux.is_queued(id)
    }

    /// Takes bytes for a stream; how many, 0 when it is full. `None` when it is over.
    ///
    /// Who has not yet taken them from a client asks for [`Self::room`] before: bytes that are there are taken by a
    /// frugal session too.
    pub fn write(&mut self, id: StreamId, bytes: &[u8]) -> Option<usize> {
        self.open_stream(id)?;
        Some(self.mux.write(id, bytes))
    }

    /// How many bytes may be taken from a stream's client; `None` when it is over.
    #[must_use]
    pub fn room(&self, id: StreamId) -> Option<usize> {
        let room = self.open_stream(id)?.room();
        Some(if self.takes() { room } else { 0 })
    }

    /// Whether bytes may be taken from clients whose streams have room.
    #[must_use]
    pub fn takes(&self) -> bool {
        !self.frugal || self.memory().outgoing < FRUGAL_SEND_BYTES
    }

    /// Whether so many may be taken that it is worth to tell all who wait for it.
    #[must_use]
    pub fn takes_well(&self) -> bool {
        !self.frugal || self.memory().outgoing <= FRUGAL_SEND_BYTES / 2
    }

    /// What all buffers keep: what is on its way to the agent until it is acknowledged, and what is on its way to a
    /// client until the read behind it.
    #[must_use]
    pub fn memory(&self) -> Memory {
        self.mux.memory() + self.channel.memory()
    }

    /// Whether the session does with little memory: it goes on, and takes little at once.
    #[must_use]
    pub fn is_frugal(&self) -> bool {
        self.frugal
    }

    /// There is no memory but the least for this session, or there is again.
    pub fn set_frugal(&mut self, frugal: bool, now: Instant) {
        self.frugal = frugal;
        let unread = if frugal {
            FRUGAL_UNREAD_BYTES
        } else {
            RECEIVE_BYTES_MAX
        };
        self.mux.set_unread_bytes_max(unread, now);
        self.channel.set_frugal(frugal);
    }

    /// Reads up to `bytes_max` bytes of a stream. They count as unread until the next read of it.
    pub fn read(&mut self, id: StreamId, bytes_max: usize) -> Read {
        if let Some(cause) = self.resets.get(&id) {
            return Read::Reset(*cause);
        }
        if let Some(bytes) = self.mux.read(id, bytes_max) {
            return Read::Bytes(bytes);
        }
        match self.mux.stream(id) {
            Some(stream) if stream.remote_finished() => {
                let doubtful = self.doubtful.iter().any(|(other, _)| *other == id);
                if doubtful && !self.ended {
                    Read::Pending
                } else {
                    Read::Finished
                }
            }
            Some(_) if !self.ended => Read::Pending,
            Some(_) | None => Read::Reset(ResetCause::SessionEnded),
        }
    }

    /// Why a stream broke, if it did.
    #[must_use]
    pub fn reset_cause(&self, id: StreamId) -> Option<ResetCause> {
        self.resets.get(&id).copied()
    }

    /// Closes a stream behind what it has to send. The agent then closes both ways: what the destination says later
    /// is lost.
    pub fn finish(&mut self, id: StreamId) {
        self.mux.finish(id);
    }

    /// Nobody uses the stream any more: it is closed, at once unless it was finished before, and forgotten.
    pub fn discard(&mut self, id: StreamId) {
        self.mux.discard(id);
        self.resets.remove(&id);
        self.doubtful.retain(|(other, _)| *other != id);
    }

    /// A websocket is open and admitted.
    pub fn handle_transport_opened(&mut self) {
        self.channel.handle_transport_opened();
    }

    /// The websocket is gone.
    pub fn handle_transport_lost(&mut self) {
        self.channel.handle_transport_lost();
    }

    /// A message has come.
    pub fn handle_message(&mut self, bytes: &Bytes, now: Instant) {
        if self.ended {
            return;
        }
        self.channel.handle_message(bytes, now);
        self.handle_channel_events(now);
    }

    /// The deadline of [`Self::poll_timeout`] has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.channel.handle_timeout(now, self.mux.has_room());
        self.handle_channel_events(now);
        if self.first_data_at.is_some_and(|at| now >= at) {
            self.first_data_at = None;
        }
        if self.keepalive_at.is_some_and(|at| now >= at) {
            self.mux.keep_alive();
            self.keepalive_at = Some(now + KEEPALIVE_INTERVAL);
        }
        while self
            .doubtful
            .front()
            .is_some_and(|(_, until)| now >= *until)
        {
            if let Some((id, _)) = self.doubtful.pop_front() {
                self.events.push_back(Event::DestinationReached);
                self.events.push_back(Event::Readable(id));
            }
        }
        while self.refusals.front().is_some_and(|until| now >= *until) {
            self.refusals.pop_front();
        }
        if self.stalled_at().is_some_and(|at| now >= at) {
            let fullest = self.mux.fullest_stream();
            if let Some(id) = fullest.filter(|_| !self.mux.is_relieved()) {
                self.reset(id, ResetCause::Stalled);
                self.events.push_back(Event::StreamStalled(id));
            }
            self.mux.count_anew(now);
        }
    }

    /// The next message for the websocket.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        if self.is_shared() {
            self.shared_since.get_or_insert(now);
        }
        if let Some(message) = self.channel.poll_transmit(now) {
            return Some(message);
        }
        if self.channel.has_room() && self.channel.data_from().is_some_and(|from| now >= from) {
            let payload = self.mux.poll_payload(UPLINK_PAYLOAD_BYTES, now)?;
            self.channel.send_data(payload, now);
            self.handle_stream_events(now);
        }
        self.channel.poll_transmit(now)
    }

    /// When [`Self::handle_timeout`], and then [`Self::poll_transmit`], are due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.ended {
            return None;
        }
        let refusal = self.refusals.front().copied();
        let doubt = self.doubtful.front().map(|(_, until)| *until);
        [
            self.channel.poll_timeout(),
            self.first_data_at,
            self.keepalive_at,
            self.stalled_at(),
            refusal,
            doubt,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// What has happened, in order.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Whether more messages may be read: not while the unread bytes of all streams use up the budget.
    #[must_use]
    pub fn wants_to_read(&self) -> bool {
        self.mux.has_room()
    }

    fn handle_channel_events(&mut self, now: Instant) {
        while let Some(event) = self.channel.poll_event() {
            match event {
                data_channel::Event::Established(established) => {
                    self.keepalive_at = established.keepalive.then_some(now);
                    self.first_data_at = self.channel.data_from();
                    self.events.push_back(Event::Established(established));
                }
                data_channel::Event::Data(bytes) => {
                    if let Err(error) = self.mux.handle_bytes(bytes, now) {
                        self.end(End::Violation(error.to_string()));
                    }
                    self.handle_stream_events(now);
                }
                data_channel::Event::ConnectFailed => self.handle_connect_failed(now),
                data_channel::Event::RoundTrip(round_trip) => {
                    self.events.push_back(Event::RoundTrip(round_trip));
                }
                data_channel::Event::Ended(end) => self.end(end),
            }
        }
    }

    /// Since when the session's bytes are unread, if the budget is used up while several streams share it.
    fn stalled_at(&self) -> Option<Instant> {
        let since = self.mux.full_since()?.max(self.shared_since?);
        self.is_shared().then(|| since + self.limits.stall_limit)
    }

    fn open_stream(&self, id: StreamId) -> Option<&Stream> {
        let stream = self.mux.stream(id)?;
        let over = self.ended || self.resets.contains_key(&id) || stream.is_finishing();
        (!over && !stream.remote_finished()).then_some(stream)
    }

    fn is_shared(&self) -> bool {
        self.mux.streams().len() > 1
    }

    fn handle_stream_events(&mut self, now: Instant) {
        while let Some(event) = self.mux.poll_event() {
            match event {
                StreamEvent::Readable(id) => {
                    if self.mux.stream(id).is_some_and(Stream::is_untouched) {
                        self.events.push_back(Event::DestinationReached);
                    }
                    self.events.push_back(Event::Readable(id));
                }
                StreamEvent::Writable(id) => self.events.push_back(Event::Writable(id)),
                StreamEvent::Finished(id) => self.handle_finished(id, now),
            }
        }
    }

    fn handle_finished(&mut self, id: StreamId, now: Instant) {
        let silent = self
            .mux
            .stream(id)
            .is_some_and(|stream| !stream.received_any() && !stream.is_finishing());
        if silent && self.refusals.pop_front().is_some() {
            self.reset(id, ResetCause::Refused);
            return;
        }
        if silent {
            self.doubtful.push_back((id, now + REFUSAL_WINDOW));
        }
        self.events.push_back(Event::Readable(id));
        self.events.push_back(Event::Writable(id));
    }

    fn handle_connect_failed(&mut self, now: Instant) {
        self.events.push_back(Event::DestinationRefused);
        match self.doubtful.pop_front() {
            Some((id, _)) => self.reset(id, ResetCause::Refused),
            None => self.refusals.push_back(now + REFUSAL_WINDOW),
        }
    }

    fn reset(&mut self, id: StreamId, cause: ResetCause) {
        self.mux.discard(id);
        self.resets.insert(id, cause);
        self.events.push_back(Event::Readable(id));
        self.events.push_back(Event::Writable(id));
    }

    fn end(&mut self, end: End) {
        if !self.ended {
            self.ended = true;
            self.events.push_back(Event::Ended(end));
        }
    }
}
