//! The agent's websocket of one data channel: opened, and opened again when it closes.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};
use tokio_tungstenite::tungstenite::Error as WebsocketError;
use tokio_tungstenite::tungstenite::protocol::Message as Frame;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::connection::{Gateway, Refusal, Socket};
use super::outcome::Outcome;
use super::outgoing::{Outgoing, control_message};
use crate::protocol::message::{Message, MessageType};

/// Tries for one websocket, and the pause before the second; it doubles, up to the maximum.
const TRIES_MAX: u32 = 6;
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// How often the oldest message is looked at, as in the real agent.
const RETRANSMISSION_INTERVAL: Duration = Duration::from_millis(100);

/// As in the real agent.
const PING_INTERVAL: Duration = Duration::from_secs(54);

/// Frames written before a flush.
const BATCH_FRAMES_MAX: usize = 64;

/// The websockets of one session.
pub(super) struct Transport {
    pub(super) session: String,
    pub(super) instance_id: String,
    pub(super) gateway: Arc<Gateway>,
    pub(super) outgoing: Arc<Outgoing>,
    /// Frames to write.
    pub(super) queue: mpsc::Receiver<Bytes>,
    /// Data messages of the client; reading stops while nobody takes them.
    pub(super) messages: mpsc::Sender<Message>,
    /// Writes what is queued, closes the websocket and ends.
    pub(super) finish: CancellationToken,
}

/// Why a websocket is no longer used.
enum End {
    /// It closed: another one takes its place.
    Closed,
    /// The gateway says that the session is over.
    SessionClosed,
    /// We were asked to finish.
    Finished,
}

impl Transport {
    /// Carries messages until the session is over, on as many websockets as it takes.
    pub(super) async fn run(&mut self) -> Outcome {
        let mut first = true;
        loop {
            let socket = match self.connect().await {
                Ok(socket) => socket,
                Err(outcome) => return outcome,
            };
            self.outgoing.pause(false);
            match self.serve(socket, std::mem::take(&mut first)).await {
                Ok(End::Closed) => {}
                Ok(End::SessionClosed | End::Finished) => return Outcome::cancelled(),
                Err(error) => tracing::debug!(%error, "a data channel failed, connecting again"),
            }
        }
    }

    async fn connect(&self) -> Result<Socket, Outcome> {
        let mut pause = PAUSE_FIRST;
        for _ in 0..TRIES_MAX {
            match self.connect_once().await {
                Ok(socket) => return Ok(socket),
                Err(Refusal::SessionOver) => return Err(Outcome::cancelled()),
                Err(Refusal::Failed(error)) => {
                    tracing::debug!(%error, ?pause, "no data channel, trying again");
                }
            }
            tokio::time::sleep(pause.mul_f64(1.0 + fastrand::f64())).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
        Err(Outcome::failed("the data channel could not be opened"))
    }

    async fn connect_once(&self) -> Result<Socket, Refusal> {
        let path = format!("/v1/data-channel/{}", self.session);
        let body = json!({
            "MessageSchemaVersion": "1.0",
            "RequestId": Uuid::new_v4(),
            "ClientId": "",
        });
        let token = self.gateway.create(&path, body.to_string()).await?;
        let mut socket = self
            .gateway
            .open(&format!("{path}?role=publish_subscribe"))
            .await?;
        let opening = json!({
            "MessageSchemaVersion": "1.0",
            "RequestId": Uuid::new_v4(),
            "TokenValue": token,
            "ClientInstanceId": self.instance_id,
            "ClientId": "",
        });
        let sent = socket.send(Frame::Text(opening.to_string().into())).await;
        sent.map_err(|error| Refusal::Failed(std::io::Error::other(error)))?;
        Ok(socket)
    }

    async fn serve(&mut self, socket: Socket, first: bool) -> Result<End, WebsocketError> {
        let (mut sink, mut stream) = socket.split();
        if first {
            let state = json!({
                "SchemaVersion": 1,
                "SessionState": "Connected",
                "SessionId": self.session,
            });
            let message = control_message(MessageType::AgentSessionState, Uuid::new_v4(), &state);
            sink.send(Frame::Binary(message)).await?;
        }
        tokio::select! {
            end = read(&self.outgoing, &self.messages, &mut stream) => end,
            end = write(&self.outgoing, &mut self.queue, &self.finish, &mut sink) => end,
        }
    }
}

async fn read(
    outgoing: &Outgoing,
    messages: &mpsc::Sender<Message>,
    stream: &mut SplitStream<Socket>,
) -> Result<End, WebsocketError> {
    while let Some(frame) = stream.next().await.transpose()? {
        let bytes = match frame {
            Frame::Binary(bytes) => bytes,
            Frame::Text(_) | Frame::Ping(_) | Frame::Pong(_) | Frame::Frame(_) => continue,
            Frame::Close(_) => break,
        };
        let message = match Message::decode(&bytes) {
            Ok(message) => message,
            Err(error) => {
                tracing::debug!(%error, "a message of the client is dropped");
                continue;
            }
        };
        match message.message_type {
            MessageType::InputStreamData => {
                outgoing.pause(false);
                if messages.send(message).await.is_err() {
                    // Nobody takes data any more; acknowledgements still count.
                }
            }
            MessageType::Acknowledge => {
                outgoing.pause(false);
                outgoing.handle_acknowledgement(&message.payload);
            }
            MessageType::PausePublication => outgoing.pause(true),
            MessageType::StartPublication => outgoing.pause(false),
            MessageType::ChannelClosed => return Ok(End::SessionClosed),
            MessageType::OutputStreamData
            | MessageType::AgentSessionState
            | MessageType::InteractiveShell
            | MessageType::AgentTaskComplete
            | MessageType::AgentTaskAcknowledge => {}
        }
    }
    Ok(End::Closed)
}

async fn write(
    outgoing: &Outgoing,
    queue: &mut mpsc::Receiver<Bytes>,
    finish: &CancellationToken,
    sink: &mut SplitSink<Socket, Frame>,
) -> Result<End, WebsocketError> {
    let mut retransmission = interval(RETRANSMISSION_INTERVAL);
    let mut ping = interval(PING_INTERVAL);
    retransmission.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first ping comes after one interval.
    ping.reset();
    loop {
        tokio::select! {
            Some(frame) = queue.recv() => {
                sink.feed(Frame::Binary(frame)).await?;
                for _ in 1..BATCH_FRAMES_MAX {
                    let Ok(frame) = queue.try_recv() else { break };
                    sink.feed(Frame::Binary(frame)).await?;
                }
                sink.flush().await?;
            }
            _ = retransmission.tick() => {
                if let Some(frame) = outgoing.due() {
                    sink.send(Frame::Binary(frame)).await?;
                }
            }
            _ = ping.tick() => sink.send(Frame::Ping(Bytes::new())).await?,
            () = finish.cancelled() => {
                while let Ok(frame) = queue.try_recv() {
                    sink.feed(Frame::Binary(frame)).await?;
                }
                sink.send(Frame::Close(None)).await?;
                return Ok(End::Finished);
            }
        }
    }
}
