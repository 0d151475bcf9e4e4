//! The life of one listener, as a machine without I/O: what is wished, what has happened, what is to be done next.
//!
//! ```text
//!             recorded            StartSession            recorded and shaken hands
//! Claiming ───────────► Starting ─────────────► Opening ──────────────────────────► Serving
//!    ▲                     │ failed                │ failed                            │ ended
//!    └───── Waiting ◄──────┴───────────────────────┴───────────────────────────────────┘
//! ```
//!
//! It holds three promises of the operator. AWS is not called before something is on record, which proves that the
//! listener is ours, and StartSession not before the claim is. A session serves nobody before it is on record. A session
//! that was started is terminated until AWS has said that it is over.

mod edits;
mod output;
mod phase;
#[cfg(test)]
mod tests;
mod transition;

pub use phase::{Action, Now};

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::options::RelayOptions;
use super::report::{
    Destination, EndReason, Failure, Inherited, ListenerSpec, Report, SessionRecord, State,
};
use super::sessions::Sessions;
use super::tunnel::TunnelState;
use crate::backoff::Backoff;
use crate::broker::{BrokerError, Next, SessionId, Ticket};
use crate::protocol::End;
use edits::Edits;
use phase::{Deadlines, Phase, Stop};

/// No new session is started while so many old ones wait for their end: AWS is not to be filled with ours. What an earlier
/// run recorded and AWS refuses to end for us is not counted.
const TERMINATING_MAX: usize = 4;

/// The machine.
#[derive(Debug)]
pub struct Listener {
    options: Arc<RelayOptions>,
    spec: ListenerSpec,
    stopping: Option<(Stop, EndReason)>,
    /// The process ends: what AWS refuses to end is left to another run.
    leaving: bool,
    phase: Phase,
    /// Numbers the claims: a report counts for a claim only when it was made after it.
    claim: u64,
    sessions: Sessions,
    backoff: Backoff,
    edits: Edits,
    failure: Option<Failure>,
    retry_at: Option<Timestamp>,
    /// No session has served for longer than the hold.
    unready: bool,
    /// When that will be so, while no session serves.
    unready_at: Option<Instant>,
    port: Option<u16>,
    destination: Option<Destination>,
    /// When [`Self::destination`] last changed, and what was heard since that differs from it.
    destination_at: Option<Instant>,
    destination_heard: Option<Destination>,
    /// What stands in the way of the present session's websocket; none while it is up.
    trouble: Option<Failure>,
    actions: std::collections::VecDeque<Action>,
}

impl Listener {
    /// A listener that is about to claim its first session.
    #[must_use]
    pub fn new(
        options: Arc<RelayOptions>,
        spec: ListenerSpec,
        inherited: Inherited,
        now: Now,
    ) -> Self {
        let backoff = Backoff::new(options.backoff_min, options.backoff_max);
        let sessions = Sessions::inherit(inherited.sessions, now.monotonic, &backoff);
        let mut listener = Self {
            options,
            spec,
            stopping: None,
            leaving: false,
            phase: Phase::Claiming,
            claim: 1,
            sessions,
            edits: Edits::new(backoff.clone()),
            backoff,
            failure: None,
            retry_at: None,
            unready: false,
            unready_at: None,
            port: None,
            destination: None,
            destination_at: None,
            destination_heard: None,
            trouble: None,
            actions: std::collections::VecDeque::new(),
        };
        listener.unready_at = Some(now.monotonic + listener.options.hold);
        listener.drop_lost(now);
        listener
    }

    /// It listens on a port.
    pub fn handle_listening(&mut self, port: u16) {
        self.port = Some(port);
        self.backoff.reset();
        self.failure = None;
        self.retry_at = None;
    }

    /// No port could be listened on; it is tried again after the delay that is given.
    pub fn handle_no_port(&mut self, failure: Failure, now: Now) -> Duration {
        self.failure = Some(failure);
        let delay = self.backoff.next_delay();
        self.retry_at = Some(now.after(delay).1);
        delay
    }

    /// The wish is this from now on.
    pub fn handle_spec(&mut self, spec: ListenerSpec, now: Now) {
        let replaced = self.spec.identity != spec.identity || self.spec.request != spec.request;
        self.spec = spec;
        if replaced && self.stopping.is_none() {
            self.forget_destination();
            match &mut self.phase {
                Phase::Starting { wanted, .. } => {
                    *wanted = false;
                    self.failure = None;
                }
                Phase::Opening { .. } | Phase::Serving { .. } => {
                    self.end_current(EndReason::Replaced, "", now);
                    self.follow_edit(now);
                }
                Phase::Waiting { until } => {
                    let until = *until;
                    self.follow_edit_before(until, now);
                }
                // Without a port it is a port that is waited for, whatever the wish.
                Phase::Claiming if self.port.is_some() => self.failure = None,
                Phase::Claiming | Phase::Stopped => {}
            }
        }
        self.drop_lost(now);
    }

    /// The listener has no future: `reason` is recorded of its sessions.
    pub fn handle_stop(&mut self, reason: EndReason, now: Now) {
        self.stop(Stop::Final, reason, now);
    }

    /// The listener is another relay's: nothing can be recorded any more, and what this one started is terminated, unless
    /// AWS refuses.
    pub fn handle_disowned(&mut self, now: Now) {
        self.sessions.handle_disowned();
        self.stop(Stop::Disowned, EndReason::Replaced, now);
        if let Some((stop, _)) = &mut self.stopping {
            *stop = Stop::Disowned;
        }
    }

    /// The process has no future; nor has the listener, if it was `stopped_for` some reason before.
    pub fn handle_shutdown(&mut self, stopped_for: Option<EndReason>, now: Now) {
        self.leaving = true;
        match stopped_for {
            Some(reason) => self.stop(Stop::Final, reason, now),
            None => self.stop(Stop::Shutdown, EndReason::RelayLost, now),
        }
    }

    /// `report`, made at claim number `claim`, is on record.
    pub fn handle_recorded(&mut self, claim: u64, report: &Report, now: Now) {
        self.sessions.handle_recorded();
        match &mut self.phase {
            Phase::Claiming => {
                let claimed = claim == self.claim && report.state == State::Starting;
                let room = self.has_room();
                if claimed && room && self.port.is_some() && self.stopping.is_none() {
                    let identity = self.spec.identity.clone();
                    let request = self.spec.request.clone();
                    self.actions
                        .push_back(Action::Start(identity.clone(), request));
                    self.phase = Phase::Starting {
                        identity,
                        wanted: true,
                    };
                }
            }
            Phase::Opening {
                session, recorded, ..
            } => {
                *recorded |= report
                    .sessions
                    .iter()
                    .any(|record| record.session_id == *session && record.end.is_none());
                self.serve_if_ready(now);
            }
            Phase::Starting { .. }
            | Phase::Serving { .. }
            | Phase::Waiting { .. }
            | Phase::Stopped => {}
        }
    }

    /// StartSession has answered.
    pub fn handle_started(&mut self, result: Result<Ticket, BrokerError>, now: Now) {
        let Phase::Starting { identity, wanted } = &self.phase else {
            return;
        };
        let (identity, wanted) = (identity.clone(), *wanted && self.stopping.is_none());
        let ticket = match result {
            Ok(ticket) => ticket,
            Err(error) if wanted => return self.fail(error.into(), now),
            Err(_) => return self.follow_edit(now),
        };
        let session = ticket.session_id.clone();
        self.sessions.add(SessionRecord {
            session_id: session.clone(),
            identity: identity.clone(),
            relay: self.options.name.clone(),
            incarnation: self.options.incarnation.clone(),
            started_at: now.wall,
            end: None,
        });
        let deadlines = Deadlines {
            recorded: now.monotonic + self.options.record_timeout,
            established: now.monotonic + self.options.handshake_timeout,
        };
        let usable = ticket.has_token();
        let stopped_for = self.stopping.map(|(_, reason)| reason);
        self.trouble = None;
        self.phase = Phase::Opening {
            session,
            recorded: false,
            established: false,
            deadlines,
        };
        if !wanted {
            self.end_current(stopped_for.unwrap_or(EndReason::Replaced), "", now);
            self.follow_edit(now);
        } else if usable {
            self.actions.push_back(Action::Open(identity, ticket));
        } else {
            let why = "StartSession gave no token".to_owned();
            self.end_current(EndReason::StartFailed, &why, now);
            self.fail(Failure::DataChannel(why), now);
        }
    }

    /// The tunnel shows something new.
    pub fn handle_tunnel(&mut self, tunnel: &TunnelState, now: Now) {
        if !matches!(self.phase, Phase::Opening { .. } | Phase::Serving { .. }) {
            return;
        }
        let TunnelState {
            established,
            destination,
            trouble,
            end,
        } = tunnel;
        self.trouble.clone_from(trouble);
        self.hear_of_destination(*destination, now);
        self.follow_websocket(now);
        self.show_trouble();
        if established.is_some()
            && let Phase::Opening { established, .. } = &mut self.phase
        {
            *established = true;
            self.serve_if_ready(now);
        }
        match end {
            None => {}
            Some(End::Closed(why)) => self.closed(EndReason::ClosedByService, why, now),
            // AWS has it as live, and it is terminated like any other; for clients both are the same.
            Some(End::Unanswered(why)) => self.closed(EndReason::Unanswered, why, now),
            Some(End::Unsupported(why)) => {
                self.end_current(EndReason::StartFailed, why, now);
                self.fail(Failure::Unsupported(why.clone()), now);
            }
            Some(End::Violation(why)) => {
                let reason = if matches!(self.phase, Phase::Serving { .. }) {
                    EndReason::Broken
                } else {
                    EndReason::StartFailed
                };
                self.end_current(reason, why, now);
                self.fail(Failure::DataChannel(why.clone()), now);
            }
        }
    }

    /// TerminateSession has answered.
    pub fn handle_terminated(&mut self, id: &SessionId, result: Result<(), BrokerError>, now: Now) {
        let had_room = self.has_room();
        match result {
            Ok(()) => self.over(id, EndReason::ClosedByService, now),
            Err(error) if error.kind.next() == Next::Gone => {
                self.over(id, EndReason::ClosedByService, now);
            }
            Err(error) => {
                let refused = error.kind.next() == Next::AwaitChange;
                self.sessions
                    .handle_terminate_failed(id, refused, now.monotonic);
                if !self.has_room() {
                    // No session is started until one of them is over, so this is what stands in the way.
                    self.failure = Some(error.into());
                } else if !had_room && matches!(self.phase, Phase::Claiming) {
                    // The claim may be on record, and nothing else in the report be different.
                    self.enter_claiming();
                }
            }
        }
    }

    /// Whether another session may be started beside those that wait for their end.
    fn has_room(&self) -> bool {
        self.sessions.open_count() < TERMINATING_MAX
    }

    /// A deadline of [`Self::poll_timeout`] has passed.
    pub fn handle_timeout(&mut self, now: Now) {
        if self.unready_at.is_some_and(|at| now.monotonic >= at) {
            self.unready_at = None;
            self.unready = true;
            self.show_trouble();
        }
        self.show_destination(now);
        match &self.phase {
            Phase::Waiting { until } if now.monotonic >= *until => self.enter_claiming(),
            Phase::Opening {
                recorded,
                established,
                deadlines,
                ..
            } => {
                if !established && now.monotonic >= deadlines.established {
                    let (why, failure) = self.unshaken();
                    self.end_current(EndReason::StartFailed, &why, now);
                    self.fail(failure, now);
                } else if !recorded && now.monotonic >= deadlines.recorded {
                    let limit = self.options.record_timeout;
                    let why = format!("the session could not be recorded within {limit:?}");
                    self.end_current(EndReason::StartFailed, &why, now);
                    self.fail(Failure::Recording(why), now);
                }
            }
            Phase::Waiting { .. }
            | Phase::Claiming
            | Phase::Starting { .. }
            | Phase::Serving { .. }
            | Phase::Stopped => {}
        }
    }
}
