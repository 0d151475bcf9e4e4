//! One session at the agent: its tasks, from its order to its end.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::AgentOptions;
use super::connection::Gateway;
use super::incoming::Incoming;
use super::order::Order;
use super::outcome::Outcome;
use super::outgoing::{Outgoing, QUEUE_FRAMES_MAX};
use super::transport::Transport;

/// How long an ending session waits for its last messages to be acknowledged, as the real agent.
const DRAIN_MAX: Duration = Duration::from_secs(2);

/// How long the websocket may take to close.
const CLOSE_MAX: Duration = Duration::from_secs(1);

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
