//! One session as the service sees it: its status, who is attached, and what `DescribeSessions` may
//! already show of it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::data_channel::DataChannel;
use super::line::{Line, Loss};
use super::seat::{Seat, Side};
use super::view::{SessionView, Status};

/// Published changes kept for each session. A session has a handful; only one whose websockets come
/// and go within the consistency delay has more, and then the oldest no longer matter.
const PUBLISHED_MAX: usize = 64;

/// What `DescribeSessions` may show from some moment on.
#[derive(Clone, Copy)]
pub(super) struct Published {
    at: Instant,
    pub(super) status: Status,
    pub(super) ended: Option<Timestamp>,
}

/// One session.
pub(super) struct Session {
    pub(super) view: SessionView,
    /// Gone when the session is over, with all frames that it held.
    pub(super) channel: Option<Arc<DataChannel>>,
    client: Option<Seat>,
    agent: Option<Seat>,
    was_connected: bool,
    published: VecDeque<Published>,
}

/// The present, to the millisecond, as AWS gives times.
fn now() -> Timestamp {
    Timestamp::from_millisecond(Timestamp::now().as_millisecond()).unwrap_or_default()
}

impl Session {
    /// A session that was started just now.
    pub(super) fn new(
        id: String,
        owner: String,
        target: String,
        document: String,
        reason: Option<String>,
        loss: Arc<Loss>,
    ) -> Self {
        let started = now();
        let line = Line::new(loss);
        let channel = Arc::new(DataChannel::new(id.clone(), target.clone(), line));
        let view = SessionView {
            id,
            owner,
            target,
            document,
            reason,
            status: Status::Connecting,
            started,
            ended: None,
            output: String::new(),
            client_attached: false,
            agent_attached: false,
            client_websockets: 0,
            client_websockets_signed: 0,
            resumed: 0,
        };
        let mut session = Self {
            view,
            channel: Some(channel),
            client: None,
            agent: None,
            was_connected: false,
            published: VecDeque::new(),
        };
        session.publish();
        session
    }

    fn publish(&mut self) {
        if self.published.len() == PUBLISHED_MAX {
            self.published.pop_front();
        }
        let (status, ended) = (self.view.status, self.view.ended);
        self.published.push_back(Published {
            at: Instant::now(),
            status,
            ended,
        });
    }

    /// What was the case `delay` ago, or nothing when the session is younger.
    pub(super) fn visible(&self, delay: Duration) -> Option<Published> {
        let now = Instant::now();
        self.published
            .iter()
            .rev()
            .find(|p| p.at + delay <= now)
            .copied()
    }

    /// Seats a websocket and unseats the one that it replaces.
    pub(super) fn attach(&mut self, side: Side, seat: Seat, signed: bool) {
        let was_there_before = self.view.client_websockets > 0;
        let place = match side {
            Side::Client => {
                self.view.client_websockets += 1;
                self.view.client_websockets_signed += u64::from(signed);
                &mut self.client
            }
            Side::Agent => &mut self.agent,
        };
        if let Some(replaced) = place.replace(seat) {
            replaced.kick.cancel();
        }
        if let Some(channel) = &self.channel {
            match side {
                Side::Client if was_there_before => channel.start_agent(),
                Side::Agent if was_there_before && self.client.is_none() => channel.pause_agent(),
                Side::Client | Side::Agent => {}
            }
        }
        self.refresh();
    }

    /// Unseats a websocket that has closed, unless another one has taken its place.
    pub(super) fn detach(&mut self, side: Side, generation: u64) {
        let place = match side {
            Side::Client => &mut self.client,
            Side::Agent => &mut self.agent,
        };
        if place
            .as_ref()
            .is_none_or(|seat| seat.generation != generation)
        {
            return;
        }
        *place = None;
        if let (Side::Client, Some(channel), true) = (side, &self.channel, self.agent.is_some()) {
            channel.pause_agent();
        }
        self.refresh();
    }

    /// Closes every websocket; the session goes on.
    pub(super) fn kick(&self) {
        for seat in self.client.iter().chain(&self.agent) {
            seat.kick.cancel();
        }
    }

    /// Resets every websocket's connection; the session goes on.
    pub(super) fn reset(&self) {
        for seat in self.client.iter().chain(&self.agent) {
            seat.reset.cancel();
        }
    }

    /// Whether no websocket is attached.
    pub(super) fn is_vacant(&self) -> bool {
        self.client.is_none() && self.agent.is_none()
    }

    /// Moves the session towards its end, once: later calls change neither output nor `EndDate`.
    ///
    /// Returns whether the session was running until now.
    pub(super) fn end(&mut self, status: Status, output: &str) -> bool {
        if self.view.status.is_history() || self.view.status == status {
            return false;
        }
        let was_running = !self.view.status.is_over();
        // What the agent makes of a termination does not change what it was.
        self.view.status = if was_running {
            status
        } else {
            Status::Terminated
        };
        if status.is_history() {
            self.view.ended = Some(now());
        }
        if let Some(channel) = self.channel.take() {
            output.clone_into(&mut self.view.output);
            channel.close(output);
        }
        self.publish();
        was_running
    }

    fn refresh(&mut self) {
        self.view.client_attached = self.client.is_some();
        self.view.agent_attached = self.agent.is_some();
        if self.view.status.is_over() {
            return;
        }
        let both = self.client.is_some() && self.agent.is_some();
        self.was_connected |= both;
        let status = match (both, self.was_connected) {
            (true, _) => Status::Connected,
            (false, true) => Status::Disconnected,
            (false, false) => Status::Connecting,
        };
        if status != self.view.status {
            self.view.status = status;
            self.publish();
        }
    }
}
