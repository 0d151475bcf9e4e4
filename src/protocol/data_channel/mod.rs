//! The client's data channel: handshake, numbering, acknowledgements. It outlives its websockets.

mod acknowledgements;
mod config;
mod event;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use uuid::Uuid;

use crate::protocol::agreement::{WORD_CHARS_MAX, check_request, cut};
use crate::protocol::handshake::{
    CLIENT_VERSION, HandshakeComplete, HandshakeRequest, HandshakeResponse, ProcessedAction,
    Version,
};
use crate::protocol::inbox::{AHEAD_BYTES_MAX, Arrival, Inbox};
use crate::protocol::memory::{FRUGAL_ACKNOWLEDGEMENTS_MAX, FRUGAL_AHEAD_BYTES, Memory};
use crate::protocol::message::{
    FLAG_SYN, FLAGS_CONTROL, Message, MessageError, MessageType, PayloadType,
};
use crate::protocol::outbox::Outbox;
use acknowledgements::{ACKNOWLEDGEMENTS_MAX, Acknowledgements};
pub use config::Config;
use event::OUTPUT_CHARS_MAX;
pub use event::{End, Established, Event};

use crate::protocol::payload::{Acknowledgement, ChannelClosed, Flag};

/// How long data waits after the handshake: the agent says that it is complete before it is ready, and would
/// acknowledge and throw away what comes in between.
const FIRST_DATA_DELAY: Duration = Duration::from_millis(100);

/// How long messages may go unanswered on an open websocket before the session is given up: as long as the real
/// client waits. The gateway answers pings for an agent that is gone, and one destination that does not read stops the
/// agent for all streams: only a new session helps.
pub const UNANSWERED_MAX: Duration = Duration::from_mins(5);

/// How soon another round trip is told: often enough to be seen by, and little beside the messages.
const ROUND_TRIP_INTERVAL: Duration = Duration::from_secs(1);

/// The machine.
#[derive(Debug)]
pub struct DataChannel {
    config: Config,
    ids: fastrand::Rng,
    phase: Phase,
    inbox: Inbox,
    outbox: Outbox,
    acknowledgements: Acknowledgements,
    events: VecDeque<Event>,
    transport_open: bool,
    /// Since when there are messages on the websocket and nothing is heard of the agent.
    unanswered_since: Option<Instant>,
    /// From when the next round trip is told, after the first.
    round_trip_from: Option<Instant>,
}

#[derive(Debug)]
enum Phase {
    AwaitingRequest,
    AwaitingComplete {
        agent_version: Version,
        agent_version_text: String,
    },
    Established {
        data_from: Instant,
    },
    Ended,
}

impl DataChannel {
    /// A channel that awaits the agent's handshake.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            ids: fastrand::Rng::with_seed(config.seed),
            outbox: Outbox::new(config.outbox_bytes_max),
            config,
            phase: Phase::AwaitingRequest,
            inbox: Inbox::default(),
            acknowledgements: Acknowledgements::default(),
            events: VecDeque::new(),
            transport_open: false,
            unanswered_since: None,
            round_trip_from: None,
        }
    }

    /// A websocket is open and admitted: what is unacknowledged is sent again, in order.
    pub fn handle_transport_opened(&mut self) {
        self.transport_open = true;
        self.acknowledgements.handle_transport_opened();
        self.outbox.handle_transport_opened();
    }

    /// The websocket is gone. Nothing is lost.
    pub fn handle_transport_lost(&mut self) {
        self.transport_open = false;
        self.unanswered_since = None;
    }

    /// A message has come. One of a type that nobody knows is passed over; what is no message at all ends the session,
    /// since a peer that sends such a thing can't be understood.
    pub fn handle_message(&mut self, bytes: &Bytes, now: Instant) {
        let message = match Message::decode(bytes) {
            Ok(message) => message,
            Err(MessageError::UnknownType) => return,
            Err(
                error @ (MessageError::Truncated
                | MessageError::HeaderLength
                | MessageError::PayloadLength
                | MessageError::NoDate
                | MessageError::Digest),
            ) => return self.end(End::Violation(error.to_string())),
        };
        match message.message_type {
            MessageType::OutputStreamData => self.handle_data(message, now),
            MessageType::Acknowledge => self.handle_acknowledge(&message.payload, now),
            MessageType::ChannelClosed => {
                let closed: ChannelClosed =
                    serde_json::from_slice(&message.payload).unwrap_or_default();
                self.end(End::Closed(closed.output));
            }
            // Nobody knows that a start follows each pause; what is lost meanwhile is found by probes.
            MessageType::PausePublication
            | MessageType::StartPublication
            | MessageType::InputStreamData
            | MessageType::AgentSessionState
            | MessageType::InteractiveShell
            | MessageType::AgentTaskComplete
            | MessageType::AgentTaskAcknowledge => {}
        }
    }

    /// The deadline of [`Self::poll_timeout`] has passed. Who does not read, with `reading` false, hears no answer.
    pub fn handle_timeout(&mut self, now: Instant, reading: bool) {
        if !self.transport_open {
            return;
        }
        self.outbox.handle_timeout(now);
        if let Some(since) = &mut self.unanswered_since
            && now >= *since + UNANSWERED_MAX
        {
            if reading {
                let why = format!("the agent has answered nothing for {UNANSWERED_MAX:?}");
                self.end(End::Unanswered(why));
            } else {
                *since = now;
            }
        }
    }

    /// The next message for the websocket: acknowledgements first, since the far end waits for them.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Bytes> {
        if !self.transport_open {
            return None;
        }
        if let Some((message_id, sequence)) = self.acknowledgements.poll_transmit() {
            return self.encode_acknowledgement(message_id, sequence, now);
        }
        let message = self.outbox.poll_transmit(now)?;
        self.unanswered_since.get_or_insert(now);
        Some(message)
    }

    /// When [`Self::handle_timeout`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let unanswered = self.unanswered_since.map(|since| since + UNANSWERED_MAX);
        let open = self.transport_open && !matches!(self.phase, Phase::Ended);
        let deadlines = self.outbox.poll_timeout().into_iter().chain(unanswered);
        deadlines.min().filter(|_| open)
    }

    /// What has happened, in order.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// The agent was heard.
    fn heard(&mut self, now: Instant) {
        self.unanswered_since = (!self.outbox.is_empty()).then_some(now);
    }

    /// When [`Self::send_data`] takes data; none before the handshake is complete and after the end.
    #[must_use]
    pub fn data_from(&self) -> Option<Instant> {
        match self.phase {
            Phase::Established { data_from } => Some(data_from),
            Phase::AwaitingRequest | Phase::AwaitingComplete { .. } | Phase::Ended => None,
        }
    }

    /// Whether there is room for more data.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.outbox.has_room()
    }

    /// What waits to be acknowledged, acknowledgements that wait, and what waits for a missing message.
    #[must_use]
    pub fn memory(&self) -> Memory {
        Memory {
            outgoing: self.outbox.memory_bytes() + self.acknowledgements.memory_bytes(),
            incoming: self.inbox.bytes(),
        }
    }

    /// There is no memory but the least for what comes, or there is again; what goes beyond it comes again.
    pub fn set_frugal(&mut self, frugal: bool) {
        let (bytes, acknowledgements) = if frugal {
            (FRUGAL_AHEAD_BYTES, FRUGAL_ACKNOWLEDGEMENTS_MAX)
        } else {
            (AHEAD_BYTES_MAX, ACKNOWLEDGEMENTS_MAX)
        };
        self.inbox.set_ahead_bytes_max(bytes);
        self.acknowledgements.set_waiting_max(acknowledgements);
    }

    /// Sends bytes of the multiplexer: at most as many as the agent takes in one message, and not none.
    pub fn send_data(&mut self, payload: Bytes, now: Instant) {
        self.send(PayloadType::Output, payload, now);
    }

    fn handle_acknowledge(&mut self, payload: &[u8], now: Instant) {
        match serde_json::from_slice::<Acknowledgement>(payload) {
            Ok(ack) => {
                let sequence = ack.acknowledged_message_sequence_number;
                let round_trip = self.outbox.handle_acknowledge(sequence, now);
                self.heard(now);
                let is_due = self.round_trip_from.is_none_or(|from| now >= from);
                if let Some(round_trip) = round_trip.filter(|_| is_due) {
                    self.round_trip_from = Some(now + ROUND_TRIP_INTERVAL);
                    self.events.push_back(Event::RoundTrip(round_trip));
                }
            }
            Err(error) => {
                self.end(End::Violation(format!("acknowledgement: {error}")));
            }
        }
    }

    fn handle_data(&mut self, message: Message, now: Instant) {
        self.heard(now);
        if matches!(self.phase, Phase::Ended) {
            return;
        }
        let (message_id, sequence) = (message.message_id, message.sequence);
        match self.inbox.handle_message(message) {
            Arrival::Next => {
                self.acknowledgements.push(message_id, sequence);
                while let Some(message) = self.inbox.poll_deliver() {
                    self.deliver(&message, now);
                }
            }
            Arrival::Ahead | Arrival::Duplicate => {
                self.acknowledgements.push(message_id, sequence);
            }
            Arrival::Dropped => {}
        }
    }

    fn deliver(&mut self, message: &Message, now: Instant) {
        match (message.payload_type, &self.phase) {
            (_, Phase::Ended) => {}
            (PayloadType::HandshakeRequest, Phase::AwaitingRequest) => {
                self.handle_request(&message.payload, now);
            }
            (PayloadType::HandshakeComplete, Phase::AwaitingComplete { .. }) => {
                self.handle_complete(&message.payload, now);
            }
            (PayloadType::Output, Phase::Established { .. }) => {
                self.events.push_back(Event::Data(message.payload.clone()));
            }
            (PayloadType::Output | PayloadType::StdErr, _) => {
                let what =
                    "output came before a handshake: the document does not start a port session";
                self.end(End::Unsupported(what.to_owned()));
            }
            (PayloadType::Flag, Phase::Established { .. })
                if Flag::decode(&message.payload) == Some(Flag::ConnectToPortError) =>
            {
                self.events.push_back(Event::ConnectFailed);
            }
            // A repeated handshake and payloads of other kinds of sessions mean nothing here.
            _ => {}
        }
    }

    fn handle_request(&mut self, payload: &[u8], now: Instant) {
        let request: HandshakeRequest = match serde_json::from_slice(payload) {
            Ok(request) => request,
            Err(error) => return self.end(End::Violation(format!("handshake request: {error}"))),
        };
        let agent_version = match check_request(&request) {
            Ok(agent_version) => agent_version,
            Err(why) => return self.end(End::Unsupported(why)),
        };
        let response = HandshakeResponse {
            client_version: CLIENT_VERSION.to_owned(),
            processed_client_actions: request
                .requested_client_actions
                .iter()
                .map(|action| ProcessedAction::success(&action.action_type))
                .collect(),
            errors: None,
        };
        let agent_version_text = cut(&request.agent_version, WORD_CHARS_MAX);
        self.phase = Phase::AwaitingComplete {
            agent_version,
            agent_version_text,
        };
        match serde_json::to_vec(&response) {
            Ok(json) => self.send(PayloadType::HandshakeResponse, json.into(), now),
            Err(error) => self.end(End::Violation(format!("handshake response: {error}"))),
        }
    }

    fn handle_complete(&mut self, payload: &[u8], now: Instant) {
        let complete: HandshakeComplete = serde_json::from_slice(payload).unwrap_or_default();
        let data_from = now + FIRST_DATA_DELAY;
        let before = std::mem::replace(&mut self.phase, Phase::Established { data_from });
        if let Phase::AwaitingComplete {
            agent_version,
            agent_version_text,
        } = before
        {
            self.events.push_back(Event::Established(Established {
                agent_version: agent_version_text,
                keepalive: agent_version <= Version::LAST_WITH_KEEPALIVE,
                customer_message: cut(&complete.customer_message, OUTPUT_CHARS_MAX),
            }));
        }
    }

    fn encode_acknowledgement(&mut self, id: Uuid, sequence: i64, now: Instant) -> Option<Bytes> {
        let ack = Acknowledgement::of(MessageType::OutputStreamData, id, sequence);
        let message = Message {
            message_type: MessageType::Acknowledge,
            created_ms: self.created_ms(now),
            sequence: 0,
            flags: FLAGS_CONTROL,
            message_id: self.new_id(),
            payload_type: PayloadType::None,
            payload: serde_json::to_vec(&ack).ok()?.into(),
        };
        Some(message.encode())
    }

    fn send(&mut self, payload_type: PayloadType, payload: Bytes, now: Instant) {
        // The agent passes over an empty message without an acknowledgement: it would be sent for ever.
        if payload.is_empty() {
            return;
        }
        let sequence = self.outbox.next_sequence();
        let message = Message {
            message_type: MessageType::InputStreamData,
            created_ms: self.created_ms(now),
            sequence,
            flags: if sequence == 0 { FLAG_SYN } else { 0 },
            message_id: self.new_id(),
            payload_type,
            payload,
        };
        self.outbox.push(message.encode());
    }

    fn end(&mut self, end: End) {
        if !matches!(self.phase, Phase::Ended) {
            self.phase = Phase::Ended;
            self.events.push_back(Event::Ended(end.bounded()));
        }
    }

    fn new_id(&mut self) -> Uuid {
        uuid::Builder::from_random_bytes(self.ids.u128(..).to_ne_bytes()).into_uuid()
    }

    fn created_ms(&self, now: Instant) -> u64 {
        let since = now
            .saturating_duration_since(self.config.origin)
            .as_millis();
        self.config
            .epoch_ms
            .saturating_add(u64::try_from(since).unwrap_or(u64::MAX))
            .max(1)
    }
}
