//! What the agent receives on a data channel: order, acknowledgements, and what becomes of payloads.
//!
//! A message in order is acknowledged after its bytes were taken, which is what slows a client down.
//! One that comes early is acknowledged at once and kept; one that comes again is acknowledged again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::AgentOptions;
use super::handshake::{self, Agreed};
use super::order::{Order, SessionType};
use super::outcome::Outcome;
use super::outgoing::Outgoing;
use super::port::{Forward, Port};
use crate::protocol::handshake::HandshakeComplete;
use crate::protocol::message::{Message, PayloadType};
use crate::protocol::payload::Flag;

/// Early messages kept, as in the real agent; what comes then is dropped and sent again.
const EARLY_MESSAGES_MAX: usize = 100_000;

/// How long the client may take for its answer, as in the real agent.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(15);

/// What a shell says first. It runs no commands.
const PROMPT: &[u8] = b"sh-5.2$ ";

enum Phase {
    /// Data is acknowledged and thrown away.
    Handshake {
        deadline: Instant,
    },
    /// Input is acknowledged and thrown away.
    Shell,
    Port(Port),
}

enum Taken {
    /// To be acknowledged.
    Accepted,
    /// The client has to send it again: no acknowledgement, no advance.
    Rejected,
}

/// The receiving half of one session.
pub(super) struct Incoming {
    order: Order,
    outgoing: Arc<Outgoing>,
    options: Arc<AgentOptions>,
    started: Instant,
    expected: i64,
    early: BTreeMap<i64, Message>,
    phase: Phase,
}

impl Incoming {
    pub(super) fn new(order: Order, outgoing: Arc<Outgoing>, options: Arc<AgentOptions>) -> Self {
        let started = Instant::now();
        let phase = match order.session_type {
            SessionType::Port => Phase::Handshake {
                deadline: started + HANDSHAKE_TIMEOUT,
            },
            SessionType::Shell => Phase::Shell,
        };
        Self {
            order,
            outgoing,
            options,
            started,
            expected: 0,
            early: BTreeMap::new(),
            phase,
        }
    }

    /// Takes messages until the session ends.
    pub(super) async fn run(mut self, mut messages: mpsc::Receiver<Message>) -> Outcome {
        match self.phase {
            Phase::Handshake { .. } | Phase::Port(_) => {
                let request = handshake::request(&self.order, &self.options.agent_version);
                self.outgoing
                    .send_json(PayloadType::HandshakeRequest, &request)
                    .await;
            }
            Phase::Shell => {
                self.outgoing
                    .send(PayloadType::Output, Bytes::from_static(PROMPT))
                    .await;
            }
        }
        loop {
            let message = tokio::select! {
                message = messages.recv() => message,
                outcome = self.phase.ended() => return outcome,
            };
            // The websocket ends together with the session, and says how.
            let Some(message) = message else {
                return Outcome::cancelled();
            };
            if let Err(outcome) = self.handle(message).await {
                return outcome;
            }
        }
    }

    async fn handle(&mut self, message: Message) -> Result<(), Outcome> {
        if message.sequence < self.expected {
            self.outgoing.acknowledge(&message).await;
            return Ok(());
        }
        if message.sequence > self.expected {
            if self.early.len() < EARLY_MESSAGES_MAX {
                self.outgoing.acknowledge(&message).await;
                self.early.insert(message.sequence, message);
            }
            return Ok(());
        }
        match self.take(&message).await? {
            Taken::Rejected => return Ok(()),
            Taken::Accepted => self.outgoing.acknowledge(&message).await,
        }
        self.expected += 1;
        while let Some(message) = self.early.remove(&self.expected) {
            if let Taken::Rejected = self.take(&message).await? {
                self.early.insert(message.sequence, message);
                break;
            }
            self.expected += 1;
        }
        Ok(())
    }

    async fn take(&mut self, message: &Message) -> Result<Taken, Outcome> {
        match (message.payload_type, &mut self.phase) {
            (PayloadType::Flag, _) => match Flag::decode(&message.payload) {
                Some(Flag::TerminateSession) => return Err(Outcome::success()),
                // Without the multiplexer this would close the target's connection; with it the
                // real agent ignores it, too.
                Some(Flag::DisconnectToPort | Flag::ConnectToPortError) | None => {}
            },
            (PayloadType::HandshakeResponse, Phase::Handshake { .. }) => {
                let agreed = handshake::agree(&message.payload).map_err(Outcome::failed)?;
                self.complete(agreed).await?;
            }
            (PayloadType::Output, Phase::Port(port)) => {
                if !port.is_ready() {
                    return Ok(Taken::Rejected);
                }
                port.write(&message.payload).await?;
            }
            // Other payloads mean nothing to a port session, nor does data before its time.
            (_, Phase::Handshake { .. } | Phase::Shell | Phase::Port(_)) => {}
        }
        Ok(Taken::Accepted)
    }

    /// Completes the handshake and connects the session to its destination.
    async fn complete(&mut self, agreed: Agreed) -> Result<(), Outcome> {
        let took = i64::try_from(self.started.elapsed().as_nanos()).unwrap_or(i64::MAX);
        let complete = HandshakeComplete {
            handshake_time_to_complete: took,
            customer_message: String::new(),
        };
        self.outgoing
            .send_json(PayloadType::HandshakeComplete, &complete)
            .await;
        let forward = Forward::parse(&self.order.properties).map_err(Outcome::failed)?;
        let port = Port::open(forward, agreed, &self.outgoing, &self.options).await?;
        self.phase = Phase::Port(port);
        Ok(())
    }
}

impl Phase {
    /// Waits for an end that no message brings: an unanswered handshake, a failed multiplexer.
    async fn ended(&mut self) -> Outcome {
        match self {
            Self::Handshake { deadline } => {
                tokio::time::sleep_until(*deadline).await;
                Outcome::failed(handshake::failure(handshake::TIMED_OUT))
            }
            Self::Shell => std::future::pending().await,
            Self::Port(port) => port.ended().await,
        }
    }
}
