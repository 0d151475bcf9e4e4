//! One session at the agent: its order, its tasks, and how it ends.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::AgentOptions;
use super::connection::Gateway;
use super::incoming::Incoming;
use super::outgoing::{Outgoing, QUEUE_FRAMES_MAX};
use super::transport::Transport;

/// How long an ending session waits for its last messages to be acknowledged, as the real agent.
const DRAIN_MAX: Duration = Duration::from_secs(2);

/// How long the websocket may take to close.
const CLOSE_MAX: Duration = Duration::from_secs(1);

/// What a session is for, in the document's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SessionType {
    Port,
    Shell,
}

impl SessionType {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Port => "Port",
            Self::Shell => "Standard_Stream",
        }
    }
}

/// A session to run.
pub(super) struct Order {
    pub(super) session: String,
    pub(super) session_type: SessionType,
    pub(super) properties: serde_json::Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct InteractiveShell {
    content: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Content {
    session_id: String,
    document_content: DocumentContent,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DocumentContent {
    schema_version: String,
    session_type: String,
    #[serde(default)]
    properties: serde_json::Value,
}

impl Order {
    /// Reads the payload of `interactive_shell`: JSON with a string of JSON in it.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub(super) fn parse(payload: &[u8]) -> Result<Self, String> {
        let shell: InteractiveShell =
            serde_json::from_slice(payload).map_err(|error| error.to_string())?;
        let content: Content =
            serde_json::from_str(&shell.content).map_err(|error| error.to_string())?;
        let document = content.document_content;
        if document.schema_version != "1.0" {
            return Err(format!(
                "schema version {} is not 1.0",
                document.schema_version
            ));
        }
        let session_type = [SessionType::Port, SessionType::Shell]
            .into_iter()
            .find(|known| known.as_str() == document.session_type)
            .ok_or_else(|| format!("session type {} is not served", document.session_type))?;
        Ok(Self {
            session: content.session_id,
            session_type,
            properties: document.properties,
        })
    }
}

/// `FinalTaskStatus`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Success,
    Failed,
    Cancelled,
}

impl Status {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Success => "Success",
            Self::Failed => "Failed",
            Self::Cancelled => "Cancelled",
        }
    }
}

/// How a session ended, and what the user is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) status: Status,
    pub(super) output: String,
}

impl Outcome {
    pub(super) fn success() -> Self {
        Self {
            status: Status::Success,
            output: String::new(),
        }
    }

    pub(super) fn failed(output: impl Into<String>) -> Self {
        Self {
            status: Status::Failed,
            output: output.into(),
        }
    }

    /// The gateway ended the session.
    pub(super) fn cancelled() -> Self {
        Self {
            status: Status::Cancelled,
            output: String::new(),
        }
    }
}

/// Runs a session to its end, or until it is stopped from outside.
pub(super) async fn run(
    order: Order,
    gateway: Arc<Gateway>,
    options: Arc<AgentOptions>,
    stop: CancellationToken,
) -> Outcome {
    let (frames, queue) = mpsc::channel(QUEUE_FRAMES_MAX);
    // One message on the way: the next is read when this one has been taken.
    let (messages, taken) = mpsc::channel(1);
    let outgoing = Arc::new(Outgoing::new(frames));
    let mut transport = Transport {
        session: order.session.clone(),
        instance_id: options.instance_id.clone(),
        gateway,
        outgoing: Arc::clone(&outgoing),
        queue,
        messages,
        finish: CancellationToken::new(),
    };
    let finish = transport.finish.clone();
    let transporting = transport.run();
    tokio::pin!(transporting);
    let incoming = Incoming::new(order, Arc::clone(&outgoing), options);
    let outcome = tokio::select! {
        () = stop.cancelled() => return Outcome::cancelled(),
        outcome = &mut transporting => return outcome,
        outcome = incoming.run(taken) => outcome,
    };
    // The session has ended here. What was sent before should arrive before the end is known.
    tokio::select! {
        () = stop.cancelled() => return outcome,
        _ = &mut transporting => return outcome,
        _ = tokio::time::timeout(DRAIN_MAX, outgoing.drained()) => {}
    }
    finish.cancel();
    let _ = tokio::time::timeout(CLOSE_MAX, transporting).await;
    outcome
}
