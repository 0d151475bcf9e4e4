//! The agent's control channel: sessions come in, their ends are reported until acknowledged.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_tungstenite::tungstenite::Error as WebsocketError;
use tokio_tungstenite::tungstenite::protocol::Message as Frame;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::connection::{Gateway, Refusal, Socket};
use super::order::Order;
use super::outcome::{Outcome, Status};
use super::outgoing::control_message;
use super::worker;
use super::{AgentOptions, Pace};
use crate::protocol::message::{Message, MessageType};
use crate::protocol::payload::ChannelClosed;

/// First pause before connecting again, doubled up to the maximum. The real agent begins with 5 to
/// 10 s and ends at 40 min, which nobody who runs tests wants to wait for.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// As the real agent: the gateway must answer within a minute, which TCP mostly notices first.
const PING_INTERVAL: Duration = Duration::from_secs(54);

/// A report that is not acknowledged is sent again after this, and given up after so many tries.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
const REPORT_TRIES_MAX: u32 = 3;

/// Ends of sessions that wait for the control channel; workers wait when it is full.
const REPORTS_MAX: usize = 64;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Acknowledged {
    message_id: Uuid,
}

struct Report {
    message: Bytes,
    tries: u32,
    sent: Instant,
}

/// The control channel's memory, which outlives its websockets.
struct Control {
    gateway: Arc<Gateway>,
    options: Arc<AgentOptions>,
    tasks: TaskTracker,
    cancel: CancellationToken,
    running: HashMap<String, CancellationToken>,
    reports: HashMap<Uuid, Report>,
    ended: mpsc::Sender<(String, Outcome)>,
}

/// Keeps the control channel up until cancelled.
pub(super) async fn run(
    gateway: Arc<Gateway>,
    options: Arc<AgentOptions>,
    tasks: TaskTracker,
    cancel: CancellationToken,
) {
    let (ended, mut endings) = mpsc::channel(REPORTS_MAX);
    let mut control = Control {
        gateway,
        options,
        tasks,
        cancel: cancel.clone(),
        running: HashMap::new(),
        reports: HashMap::new(),
        ended,
    };
    let staying_connected = async {
        let mut pause = PAUSE_FIRST;
        loop {
            match control.connect().await {
                Ok(socket) => {
                    pause = PAUSE_FIRST;
                    if let Err(error) = control.serve(socket, &mut endings).await {
                        tracing::debug!(%error, "the control channel failed, connecting again");
                    }
                }
                Err(Refusal::SessionOver) => {}
                Err(Refusal::Failed(error)) => {
                    tracing::debug!(%error, ?pause, "no control channel, trying again");
                }
            }
            tokio::time::sleep(pause.mul_f64(1.0 + fastrand::f64())).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    };
    tokio::select! {
        () = cancel.cancelled() => {}
        () = staying_connected => {}
    }
}

impl Control {
    async fn connect(&self) -> Result<Socket, Refusal> {
        let path = format!("/v1/control-channel/{}", self.options.instance_id);
        let body = json!({ "MessageSchemaVersion": "1.0", "RequestId": Uuid::new_v4() });
        let token = self.gateway.create(&path, body.to_string()).await?;
        let mut socket = self
            .gateway
            .open(&format!("{path}?role=subscribe&stream=input"))
            .await?;
        let opening = json!({
            "Cookie": null,
            "MessageSchemaVersion": "1.0",
            "RequestId": Uuid::new_v4(),
            "TokenValue": token,
            "AgentVersion": self.options.agent_version,
            "PlatformType": "linux",
        });
        let sent = socket.send(Frame::Text(opening.to_string().into())).await;
        sent.map_err(|error| Refusal::Failed(std::io::Error::other(error)))?;
        Ok(socket)
    }

    async fn serve(
        &mut self,
        mut socket: Socket,
        endings: &mut mpsc::Receiver<(String, Outcome)>,
    ) -> Result<(), WebsocketError> {
        let mut resend = interval(REPORT_INTERVAL);
        let mut ping = interval(PING_INTERVAL);
        resend.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for report in self.reports.values_mut() {
            socket.feed(Frame::Binary(report.message.clone())).await?;
            report.sent = Instant::now();
        }
        socket.flush().await?;
        loop {
            tokio::select! {
                frame = socket.next() => match frame.transpose()? {
                    Some(Frame::Binary(bytes)) => self.handle(&bytes),
                    Some(_) => {}
                    None => return Ok(()),
                },
                Some((session, outcome)) = endings.recv() => {
                    self.running.remove(&session);
                    for (id, message) in self.report(&session, &outcome) {
                        socket.feed(Frame::Binary(message.clone())).await?;
                        let report = Report { message, tries: 1, sent: Instant::now() };
                        self.reports.insert(id, report);
                    }
                    socket.flush().await?;
                }
                _ = resend.tick() => {
                    self.reports.retain(|_, report| report.tries < REPORT_TRIES_MAX);
                    for report in self.reports.values_mut() {
                        if report.sent.elapsed() >= REPORT_INTERVAL {
                            socket.feed(Frame::Binary(report.message.clone())).await?;
                            report.tries += 1;
                            report.sent = Instant::now();
                        }
                    }
                    socket.flush().await?;
                }
                _ = ping.tick() => socket.send(Frame::Ping(Bytes::new())).await?,
            }
        }
    }

    fn handle(&mut self, bytes: &Bytes) {
        let Ok(message) = Message::decode(bytes) else {
            tracing::debug!("a control message is not understood and ignored");
            return;
        };
        match message.message_type {
            MessageType::InteractiveShell => match Order::parse(&message.payload) {
                Ok(order) => self.start(order),
                Err(error) => tracing::warn!(%error, "a session is not understood and ignored"),
            },
            MessageType::ChannelClosed => {
                let closed = serde_json::from_slice::<ChannelClosed>(&message.payload);
                let worker = closed
                    .ok()
                    .and_then(|c| self.running.get(&c.session_id).cloned());
                if let Some(stop) = worker {
                    stop.cancel();
                }
            }
            MessageType::AgentTaskAcknowledge => {
                if let Ok(acknowledged) = serde_json::from_slice::<Acknowledged>(&message.payload) {
                    self.reports.remove(&acknowledged.message_id);
                }
            }
            MessageType::InputStreamData
            | MessageType::OutputStreamData
            | MessageType::Acknowledge
            | MessageType::PausePublication
            | MessageType::StartPublication
            | MessageType::AgentSessionState
            | MessageType::AgentTaskComplete => {}
        }
    }

    /// Runs one worker for a session, once.
    fn start(&mut self, order: Order) {
        let session = order.session.clone();
        if self.running.contains_key(&session) {
            return;
        }
        let stop = self.cancel.child_token();
        self.running.insert(session.clone(), stop.clone());
        let (gateway, options) = (Arc::clone(&self.gateway), Arc::clone(&self.options));
        let (ended, cancel) = (self.ended.clone(), self.cancel.clone());
        self.tasks.spawn(async move {
            let working = worker::run(order, gateway, options, stop);
            tokio::select! {
                () = cancel.cancelled() => {}
                outcome = working => {
                    let _ = ended.send((session, outcome)).await;
                }
            }
        });
    }

    /// The reports of one end. A faithful agent reports a failure twice, as the real one was seen to.
    fn report(&self, session: &str, outcome: &Outcome) -> Vec<(Uuid, Bytes)> {
        let twice = outcome.status == Status::Failed && self.options.pace == Pace::Faithful;
        let payload = json!({
            "SchemaVersion": 1,
            "TaskId": session,
            "Topic": MessageType::AgentTaskComplete.as_str(),
            "FinalTaskStatus": outcome.status.as_str(),
            "IsRoutingFailure": false,
            "AwsAccountId": "",
            "InstanceId": self.options.instance_id,
            "Output": outcome.output,
            "S3Bucket": "",
            "S3UrlSuffix": "",
            "CwlGroup": "",
            "CwlStream": "",
            "RetryNumber": 0,
        });
        let report = || {
            let id = Uuid::new_v4();
            (
                id,
                control_message(MessageType::AgentTaskComplete, id, &payload),
            )
        };
        if twice {
            vec![report(), report()]
        } else {
            vec![report()]
        }
    }
}
