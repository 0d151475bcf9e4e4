//! The client's data channel: handshake, numbering, acknowledgements. It outlives its websockets.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use uuid::Uuid;

use super::agreement::check_request;
use super::handshake::{
    CLIENT_VERSION, HandshakeComplete, HandshakeRequest, HandshakeResponse, ProcessedAction,
    Version,
};
use super::inbox::{Arrival, Inbox};
use super::message::{FLAG_SYN, FLAGS_CONTROL, Message, MessageError, MessageType};
use super::outbox::Outbox;
use super::payload::{Acknowledgement, ChannelClosed, Flag, PayloadType};

/// How long data waits after the handshake: the agent says that it is complete before it is ready, and would
/// acknowledge and throw away what comes in between.
const FIRST_DATA_DELAY: Duration = Duration::from_millis(20);

/// Acknowledgements that wait for the websocket. Past it they are dropped: the far end sends again, and we
/// acknowledge again.
const ACKNOWLEDGEMENTS_MAX: usize = 16_384;

/// What the owner gives a data channel.
#[derive(Clone, Debug)]
pub struct Config {
    /// The instant that `epoch_ms` names.
    pub origin: Instant,
    /// Milliseconds since the Unix epoch at `origin`.
    pub epoch_ms: u64,
    /// Seed of message ids.
    pub seed: u64,
    /// Bytes of messages sent and not acknowledged.
    pub outbox_bytes_max: usize,
}

/// What happens on a data channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The handshake is complete: a port session with the multiplexer.
    Established(Established),
    /// Bytes of the multiplexer, in order.
    Data(Bytes),
    /// The agent could not dial the destination of one of the streams.
    ConnectFailed,
    /// The session is over, or has to be ended.
    Ended(End),
}

/// What the handshake has shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Established {
    /// Version of the agent.
    pub agent_version: String,
    /// Whether this agent closes a multiplexer that sends no keepalive.
    pub keepalive: bool,
    /// The agent's words for the user; may be empty.
    pub customer_message: String,
}

/// Why a data channel has no future.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The service closed it, for good, and said why; may be empty.
    Closed(String),
    /// It is not a port session with the multiplexer. The session lives and has to be terminated.
    Unsupported(String),
    /// The far end broke the protocol. The session lives and has to be terminated.
    Violation(String),
}

/// The machine.
#[derive(Debug)]
pub struct DataChannel {
    config: Config,
    ids: fastrand::Rng,
    phase: Phase,
    inbox: Inbox,
    outbox: Outbox,
    acknowledgements: VecDeque<(Uuid, i64)>,
    events: VecDeque<Event>,
    transport_open: bool,
    /// The far end's websocket is away: sending again is of no use until it is back.
    paused: bool,
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
            acknowledgements: VecDeque::new(),
            events: VecDeque::new(),
            transport_open: false,
            paused: false,
        }
    }

    /// A websocket is open and admitted: what is unacknowledged is sent again, in order.
    pub fn handle_transport_opened(&mut self) {
        self.transport_open = true;
        self.paused = false;
        self.outbox.handle_transport_opened();
    }

    /// The websocket is gone. Nothing is lost.
    pub fn handle_transport_lost(&mut self) {
        self.transport_open = false;
    }

    /// A binary message has come. What is not a message of a data channel is ignored, as the real peers do.
    pub fn handle_message(&mut self, bytes: &Bytes, now: Instant) {
        let message = match Message::decode(bytes) {
            Ok(message) => message,
            Err(
                MessageError::Truncated
                | MessageError::HeaderLength
                | MessageError::UnknownType
                | MessageError::NoDate
                | MessageError::Digest,
            ) => return,
        };
        match message.message_type {
            MessageType::OutputStreamData => self.handle_data(message, now),
            MessageType::Acknowledge => {
                self.paused = false;
                if let Ok(ack) = serde_json::from_slice::<Acknowledgement>(&message.payload) {
                    self.outbox
                        .handle_acknowledge(ack.acknowledged_message_sequence_number, now);
                }
            }
            MessageType::ChannelClosed => {
                let closed: ChannelClosed =
                    serde_json::from_slice(&message.payload).unwrap_or_default();
                self.end(End::Closed(closed.output.trim().to_owned()));
            }
            MessageType::PausePublication => self.paused = true,
            MessageType::StartPublication => self.paused = false,
            MessageType::InputStreamData
            | MessageType::AgentSessionState
            | MessageType::InteractiveShell
            | MessageType::AgentTaskComplete
            | MessageType::AgentTaskAcknowledge => {}
        }
    }

    /// The deadline of [`Self::poll_timeout`] has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.transport_open && !self.paused {
            self.outbox.handle_timeout(now);
        }
    }

    /// The next message for the websocket: acknowledgements first, since the far end waits for them.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Bytes> {
        if !self.transport_open {
            return None;
        }
        if let Some((message_id, sequence)) = self.acknowledgements.pop_front() {
            return self.encode_acknowledgement(message_id, sequence, now);
        }
        self.outbox.poll_transmit(now)
    }

    /// When [`Self::handle_timeout`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.transport_open && !self.paused {
            self.outbox.poll_timeout()
        } else {
            None
        }
    }

    /// What has happened, in order.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
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

    /// Whether all that was sent has been acknowledged.
    #[must_use]
    pub fn is_acknowledged(&self) -> bool {
        self.outbox.is_empty()
    }

    /// Sends bytes of the multiplexer: at most as many as the agent takes in one message, and not none.
    pub fn send_data(&mut self, payload: Bytes, now: Instant) {
        self.send(PayloadType::Output, payload, now);
    }

    fn handle_data(&mut self, message: Message, now: Instant) {
        self.paused = false;
        if matches!(self.phase, Phase::Ended) {
            return;
        }
        let (message_id, sequence) = (message.message_id, message.sequence);
        match self.inbox.handle_message(message) {
            Arrival::Next => {
                self.acknowledge(message_id, sequence);
                while let Some(message) = self.inbox.poll_deliver() {
                    self.deliver(&message, now);
                }
            }
            Arrival::Ahead | Arrival::Duplicate => self.acknowledge(message_id, sequence),
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
        let agent_version_text = request.agent_version;
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
                customer_message: complete.customer_message,
            }));
        }
    }

    fn acknowledge(&mut self, message_id: Uuid, sequence: i64) {
        if self.acknowledgements.len() < ACKNOWLEDGEMENTS_MAX {
            self.acknowledgements.push_back((message_id, sequence));
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
            self.events.push_back(Event::Ended(end));
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
