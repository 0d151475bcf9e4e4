//! One session's data channel: frames go from one side to the other, verbatim and in order, unless its line is told
//! otherwise.
//!
//! A frame is held until the other side is there. What is held is bounded in bytes: at the bound the
//! sender's websocket is read no further.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_tungstenite::tungstenite::{Error as WebsocketError, protocol::Message as Frame};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::connection::Connection;
use super::line::Line;
use super::seat::{Seat, Side};
use super::socket::{CLOSE_TIMEOUT, Socket, bye};
use crate::protocol::message::{Message, MessageType, PayloadType};
use crate::protocol::payload::ChannelClosed;

/// Bytes held for each direction: as much as the multiplexer of a real agent buffers, and enough
/// for all messages that a client sends before the agent's first answer.
const HELD_BYTES_MAX: usize = 4 << 20;

/// Frames written before a flush: beyond this, larger batches gain nothing.
const BATCH_FRAMES_MAX: usize = 64;

/// Where the message type is in a frame.
const MESSAGE_TYPE_FIELD: std::ops::Range<usize> = 4..36;

/// A message of the gateway's own making.
pub(super) fn gateway_message(
    message_type: MessageType,
    message_id: Uuid,
    payload: &impl Serialize,
) -> Bytes {
    let message = Message {
        message_type,
        // Never 0, which receivers reject: the clock is past 1970.
        created_ms: u64::try_from(Timestamp::now().as_millisecond()).unwrap_or(1),
        sequence: 0,
        flags: 0,
        message_id,
        payload_type: PayloadType::None,
        payload: serde_json::to_vec(payload).unwrap_or_default().into(),
    };
    message.encode()
}

/// `channel_closed` for either side.
pub(super) fn closed_message(session: &str, target: &str, output: &str) -> Bytes {
    let message_id = Uuid::new_v4();
    let payload = ChannelClosed {
        message_type: MessageType::ChannelClosed.as_str().to_owned(),
        message_id: message_id.to_string(),
        destination_id: target.to_owned(),
        session_id: session.to_owned(),
        schema_version: 1,
        created_date: Timestamp::now().to_string(),
        output: output.to_owned(),
    };
    gateway_message(MessageType::ChannelClosed, message_id, &payload)
}

struct Held {
    frame: Frame,
    /// Gives the bytes back when the frame has gone out.
    _budget: Option<OwnedSemaphorePermit>,
}

/// One direction.
struct Lane {
    incoming: mpsc::UnboundedSender<Held>,
    /// Locked by the websocket that sends: the next one waits for it to end.
    outgoing: Mutex<Outgoing>,
    budget: Arc<Semaphore>,
}

struct Outgoing {
    held: mpsc::UnboundedReceiver<Held>,
    /// Taken from the queue and not yet written: it survives a websocket that fails.
    front: Option<Held>,
}

impl Lane {
    fn new() -> Self {
        let (incoming, held) = mpsc::unbounded_channel();
        let outgoing = Mutex::new(Outgoing { held, front: None });
        Self {
            incoming,
            outgoing,
            budget: Arc::new(Semaphore::new(HELD_BYTES_MAX)),
        }
    }

    /// Holds a frame, as soon as there is room.
    async fn hold(&self, frame: Frame) {
        let bytes = u32::try_from(frame.len().clamp(1, HELD_BYTES_MAX)).unwrap_or(u32::MAX);
        // The semaphore is never closed.
        let budget = Arc::clone(&self.budget)
            .acquire_many_owned(bytes)
            .await
            .ok();
        let _ = self.incoming.send(Held {
            frame,
            _budget: budget,
        });
    }

    /// Holds a message of the gateway, which is small and rare: one for each websocket at most.
    fn announce(&self, frame: Bytes) {
        let _ = self.incoming.send(Held {
            frame: Frame::Binary(frame),
            _budget: None,
        });
    }
}

impl Outgoing {
    /// Waits for a frame to write. Loses none when dropped.
    async fn wait(&mut self) {
        if self.front.is_none() {
            self.front = self.held.recv().await;
        }
    }

    /// Writes what there is, up to a batch, and flushes it.
    async fn write(
        &mut self,
        sink: &mut SplitSink<Socket, Frame>,
        frames_max: usize,
    ) -> Result<(), WebsocketError> {
        for _ in 0..frames_max {
            if self.front.is_none() {
                self.front = self.held.try_recv().ok();
            }
            let Some(held) = &self.front else { break };
            sink.feed(held.frame.clone()).await?;
            self.front = None;
        }
        sink.flush().await
    }
}

/// One session's data channel.
pub(super) struct DataChannel {
    session: String,
    target: String,
    to_client: Lane,
    to_agent: Lane,
    line: Line,
    last_word: OnceLock<Bytes>,
    closed: CancellationToken,
}

impl DataChannel {
    pub(super) fn new(session: String, target: String, line: Line) -> Self {
        Self {
            session,
            target,
            to_client: Lane::new(),
            to_agent: Lane::new(),
            line,
            last_word: OnceLock::new(),
            closed: CancellationToken::new(),
        }
    }

    /// What becomes of its frames.
    pub(super) fn line(&self) -> &Line {
        &self.line
    }

    /// The client is away.
    pub(super) fn pause_agent(&self) {
        self.announce_to_agent(MessageType::PausePublication);
    }

    /// The client is back.
    pub(super) fn start_agent(&self) {
        self.announce_to_agent(MessageType::StartPublication);
    }

    fn announce_to_agent(&self, message_type: MessageType) {
        let payload = serde_json::json!({ "SessionId": self.session });
        self.to_agent
            .announce(gateway_message(message_type, Uuid::new_v4(), &payload));
    }

    /// Sends `channel_closed` behind what is held, to both sides, and closes their websockets.
    pub(super) fn close(&self, output: &str) {
        self.last_word
            .get_or_init(|| closed_message(&self.session, &self.target, output));
        self.closed.cancel();
    }

    /// Carries frames between a websocket and the other side, until it closes, is kicked or reset, or
    /// the session is over.
    pub(super) async fn carry(
        &self,
        side: Side,
        seat: &Seat,
        socket: Socket,
        connection: Option<&Connection>,
    ) {
        let (mut sink, mut stream) = socket.split();
        let cut_off = async {
            tokio::select! {
                () = self.closed.cancelled() => {}
                () = seat.kick.cancelled() => {}
            }
            tokio::time::sleep(CLOSE_TIMEOUT).await;
        };
        tokio::select! {
            () = self.read(side, &mut stream) => {}
            result = self.write(side, seat, &mut sink) => {
                if let Err(error) = result {
                    tracing::debug!(session = self.session, ?side, %error, "websocket failed");
                }
            }
            () = cut_off => {}
            () = seat.reset.cancelled() => {
                if let Some(connection) = connection {
                    connection.reset_on_close();
                }
                return;
            }
        }
        // What the peer had sent before it heard of the close still counts. And a connection dropped
        // with unread bytes is reset, and the reset may overtake the last word.
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, self.read(side, &mut stream)).await;
    }

    async fn read(&self, side: Side, stream: &mut SplitStream<Socket>) {
        let lane = match side {
            Side::Client => &self.to_agent,
            Side::Agent => &self.to_client,
        };
        while let Some(Ok(frame)) = stream.next().await {
            match frame {
                Frame::Binary(bytes) if side == Side::Agent && is_for_the_gateway(&bytes) => {}
                Frame::Binary(_) if self.closed.is_cancelled() => {}
                Frame::Binary(bytes) => {
                    if let Some(frame) = self.line.pass(side, bytes) {
                        lane.hold(frame).await;
                    }
                }
                // The websocket answers pings and the close by itself; real peers log and ignore
                // text behind the first frame.
                Frame::Text(_) | Frame::Ping(_) | Frame::Pong(_) | Frame::Frame(_) => {}
                Frame::Close(_) => return,
            }
        }
    }

    async fn write(
        &self,
        side: Side,
        seat: &Seat,
        sink: &mut SplitSink<Socket, Frame>,
    ) -> Result<(), WebsocketError> {
        let lane = match side {
            Side::Client => &self.to_client,
            Side::Agent => &self.to_agent,
        };
        let mut outgoing = lane.outgoing.lock().await;
        loop {
            tokio::select! {
                biased;
                () = self.closed.cancelled() => {
                    outgoing.write(sink, usize::MAX).await?;
                    if let Some(last_word) = self.last_word.get() {
                        sink.feed(Frame::Binary(last_word.clone())).await?;
                    }
                    return sink.send(bye()).await;
                }
                () = seat.kick.cancelled() => return sink.send(bye()).await,
                () = outgoing.wait() => outgoing.write(sink, BATCH_FRAMES_MAX).await?,
            }
        }
    }
}

/// Whether a frame is `agent_session_state`, which no client gets to see.
fn is_for_the_gateway(frame: &[u8]) -> bool {
    let name = MessageType::AgentSessionState.as_str().as_bytes();
    frame.get(MESSAGE_TYPE_FIELD).is_some_and(|field| {
        field
            .strip_prefix(name)
            .is_some_and(|rest| rest.iter().all(|b| *b == b' ' || *b == 0))
    })
}
