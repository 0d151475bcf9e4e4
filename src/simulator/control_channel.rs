//! An agent's control channel: sessions are announced on it, and their ends reported.

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::protocol::Message as Frame;
use uuid::Uuid;

use super::Shared;
use super::data_channel::gateway_message;
use super::seat::Seat;
use super::socket::{CLOSE_TIMEOUT, Socket, bye};
use super::view::Status;
use crate::protocol::message::{Message, MessageType};

/// What an agent reports when a session has ended; it sends more, which the gateway does not need.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct TaskComplete {
    task_id: String,
    final_task_status: String,
    #[serde(default)]
    output: String,
}

/// The answer, without which the agent reports again.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct TaskAcknowledge {
    schema_version: u32,
    message_id: String,
    task_id: String,
    topic: &'static str,
}

/// Serves an agent's control channel until it closes or another one takes its place.
pub(super) async fn carry(
    shared: &Shared,
    seat: &Seat,
    mut messages: mpsc::UnboundedReceiver<Bytes>,
    mut socket: Socket,
) {
    loop {
        let written = tokio::select! {
            () = seat.kick.cancelled() => {
                let _ = tokio::time::timeout(CLOSE_TIMEOUT, socket.send(bye())).await;
                return;
            }
            Some(message) = messages.recv() => socket.send(Frame::Binary(message)).await,
            frame = socket.next() => match frame {
                Some(Ok(Frame::Binary(bytes))) => match handle(shared, &bytes) {
                    Some(answer) => socket.send(Frame::Binary(answer)).await,
                    None => Ok(()),
                },
                Some(Ok(_)) => Ok(()),
                Some(Err(_)) | None => return,
            },
        };
        if let Err(error) = written {
            tracing::debug!(%error, "an agent's control channel failed");
            return;
        }
    }
}

/// Takes note of one message, and gives the answer to it. A task may be reported several times.
fn handle(shared: &Shared, bytes: &Bytes) -> Option<Bytes> {
    let message = Message::decode(bytes).ok()?;
    if message.message_type != MessageType::AgentTaskComplete {
        return None;
    }
    let task: TaskComplete = serde_json::from_slice(&message.payload)
        .inspect_err(|error| tracing::warn!(%error, "an agent's report is not understood"))
        .ok()?;
    let status = if task.final_task_status == "Failed" {
        Status::Failed
    } else {
        Status::Terminated
    };
    shared.change(|store| store.end(&task.task_id, status, &task.output));
    let answer = TaskAcknowledge {
        schema_version: 1,
        message_id: message.message_id.to_string(),
        task_id: task.task_id,
        topic: MessageType::AgentTaskComplete.as_str(),
    };
    Some(gateway_message(
        MessageType::AgentTaskAcknowledge,
        Uuid::new_v4(),
        &answer,
    ))
}
