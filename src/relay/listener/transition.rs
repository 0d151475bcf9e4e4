//! What leads from one phase of a listener to the next.

use std::time::Duration;

use super::{
    Action, Backoff, Destination, EndReason, Failure, Listener, Next, Now, Phase, SessionId, Stop,
};
use crate::backoff::spread;
use tokio::time::Instant;

/// A session that served for so long was a success: the next failure starts with the shortest delay.
const SERVED_WELL: Duration = Duration::from_mins(1);

/// How often it is told anew whether the destination answers: a client that dials in a loop writes no status in a loop.
const DESTINATION_EVERY: Duration = Duration::from_secs(10);

/// The shortest delay before what will fail again until somebody changes something.
pub(super) const AWAIT_CHANGE_MIN: Duration = Duration::from_secs(30);

impl Listener {
    pub(super) fn stop(&mut self, stop: Stop, reason: EndReason, now: Now) {
        if self.stopping.is_some() {
            return;
        }
        self.stopping = Some((stop, reason));
        self.end_current(reason, "", now);
        self.sessions
            .terminate_all(reason, now.monotonic, &self.terminate_backoff());
        if stop != Stop::Shutdown {
            self.port = None;
        }
        self.retry_at = None;
        self.unready_at = None;
        // A start that is on its way is waited for: what it started is terminated.
        if !matches!(self.phase, Phase::Starting { .. }) {
            self.phase = Phase::Stopped;
        }
    }

    pub(super) fn enter_claiming(&mut self) {
        self.claim += 1;
        self.retry_at = None;
        self.phase = if self.stopping.is_some() {
            Phase::Stopped
        } else {
            Phase::Claiming
        };
    }

    /// The wish has changed, and nothing of the last one runs any more.
    pub(super) fn follow_edit(&mut self, now: Now) {
        if self.stopping.is_some() {
            return self.enter_claiming();
        }
        let at = self.edits.due(now.monotonic);
        self.edits.followed(at);
        if at <= now.monotonic {
            self.failure = None;
            return self.enter_claiming();
        }
        self.put_edit_off();
        self.wait(at.duration_since(now.monotonic), now);
    }

    /// The wish has changed while something is waited for: it is followed then, or earlier.
    pub(super) fn follow_edit_before(&mut self, until: Instant, now: Now) {
        if self.edits.due(now.monotonic) < until {
            self.follow_edit(now);
        } else {
            self.put_edit_off();
        }
    }

    /// Says that an edit is not followed yet, and still what had gone wrong before.
    fn put_edit_off(&mut self) {
        let before = match self.failure.take() {
            Some(Failure::EditedAgain(before)) => before,
            before => before.map(Box::new),
        };
        self.failure = Some(Failure::EditedAgain(before));
    }

    pub(super) fn serve_if_ready(&mut self, now: Now) {
        if let Phase::Opening {
            session,
            recorded: true,
            established: true,
            ..
        } = &self.phase
        {
            self.phase = Phase::Serving {
                session: session.clone(),
                since: now.monotonic,
                admitting: false,
            };
            self.retry_at = None;
            self.follow_websocket(now);
            self.show_trouble();
        }
    }

    /// While the websocket is away new clients are held, and the listener is not ready once that has lasted for longer
    /// than they are: an open port behind which nothing answers is worse than a closed one.
    pub(super) fn follow_websocket(&mut self, now: Now) {
        let Phase::Serving { admitting, .. } = &mut self.phase else {
            return;
        };
        let up = self.trouble.is_none();
        if *admitting == up {
            return;
        }
        *admitting = up;
        if up {
            self.failure = None;
            self.unready = false;
            self.unready_at = None;
            self.actions.push_back(Action::Admit);
        } else {
            self.unready_at = Some(now.monotonic + self.options.hold);
            self.actions.push_back(Action::Hold);
        }
    }

    /// What has kept the websocket away for longer than clients are held is what is wrong with the listener.
    pub(super) fn show_trouble(&mut self) {
        if self.unready && matches!(self.phase, Phase::Serving { .. }) {
            self.failure.clone_from(&self.trouble);
        }
    }

    /// Why no handshake came in time, and what is wrong with that: what AWS refuses, if it refuses something.
    pub(super) fn unshaken(&self) -> (String, Failure) {
        let why = format!("no handshake within {:?}", self.options.handshake_timeout);
        let why = match &self.trouble {
            None => why,
            Some(Failure::DataChannel(trouble)) => format!("{why}: {trouble}"),
            Some(refusal) => return (format!("{why}: {refusal}"), refusal.clone()),
        };
        (why.clone(), Failure::DataChannel(why))
    }

    /// What the last dial came to is shown at once, but no more often than each [`DESTINATION_EVERY`].
    pub(super) fn hear_of_destination(&mut self, heard: Option<Destination>, now: Now) {
        if heard.is_some() {
            self.destination_heard = heard.filter(|_| heard != self.destination);
        }
        self.show_destination(now);
    }

    pub(super) fn show_destination(&mut self, now: Now) {
        let shown = self.destination_at;
        if shown.is_some_and(|at| now.monotonic < at + DESTINATION_EVERY) {
            return;
        }
        if let Some(heard) = self.destination_heard.take() {
            self.destination = Some(heard);
            self.destination_at = Some(now.monotonic);
        }
    }

    pub(super) fn destination_due(&self) -> Option<Instant> {
        self.destination_heard?;
        self.destination_at.map(|at| at + DESTINATION_EVERY)
    }

    pub(super) fn forget_destination(&mut self) {
        self.destination = None;
        self.destination_at = None;
        self.destination_heard = None;
    }

    /// The present session is no longer used: its clients are reset, and TerminateSession is called.
    pub(super) fn end_current(&mut self, reason: EndReason, message: &str, now: Now) {
        let (session, served) = match &self.phase {
            Phase::Opening { session, .. } => (session.clone(), None),
            Phase::Serving { session, since, .. } => (session.clone(), Some(*since)),
            Phase::Claiming | Phase::Starting { .. } | Phase::Waiting { .. } | Phase::Stopped => {
                return;
            }
        };
        if let Some(since) = served {
            self.unready_at = Some(now.monotonic + self.options.hold);
            if now.monotonic >= since + SERVED_WELL {
                self.backoff.reset();
                self.edits.reset();
            }
        }
        self.actions.push_back(Action::Close(reason));
        let backoff = self.terminate_backoff();
        self.sessions
            .terminate(&session, reason, message, now.monotonic, &backoff);
    }

    /// It went wrong, and is tried again after a delay.
    pub(super) fn fail(&mut self, failure: Failure, now: Now) {
        let await_change = AWAIT_CHANGE_MIN.min(self.options.backoff_max);
        let floor = match &failure {
            Failure::Broker(error) => match error.kind.next() {
                Next::AwaitChange => await_change,
                Next::BackOff | Next::Retry | Next::Gone => error.retry_after.unwrap_or_default(),
            },
            Failure::Unsupported(_) => await_change,
            Failure::DataChannel(_)
            | Failure::SessionClosed(_)
            | Failure::EditedAgain(_)
            | Failure::NoPort(_)
            | Failure::Recording(_) => Duration::ZERO,
        };
        let delay = self.backoff.next_delay().max(spread(floor));
        self.failure = Some(failure);
        self.wait(delay, now);
    }

    pub(super) fn wait(&mut self, delay: Duration, now: Now) {
        if self.stopping.is_some() {
            self.phase = Phase::Stopped;
            return;
        }
        let (until, retry_at) = now.after(delay);
        self.retry_at = Some(retry_at);
        self.phase = Phase::Waiting { until };
    }

    /// The session is over for good, or its agent is, as `reason` says of one that served. Whether somebody terminated it in
    /// AWS or a time-out of AWS's did can't be told from the service's words, so that nothing of the kind is claimed.
    pub(super) fn closed(&mut self, reason: EndReason, why: &str, now: Now) {
        let serving = matches!(self.phase, Phase::Serving { .. });
        // One that never served is one that could not be started, whoever closed it.
        let reason = if serving {
            reason
        } else {
            EndReason::StartFailed
        };
        self.end_current(reason, why, now);
        let failure = if serving {
            Failure::SessionClosed
        } else {
            Failure::DataChannel
        };
        let why = if why.is_empty() {
            "the service closed it"
        } else {
            why
        };
        self.fail(failure(why.to_owned()), now);
    }

    /// AWS says of sessions on record as live that they are over.
    pub(super) fn drop_lost(&mut self, now: Now) {
        for (id, reason) in self.spec.lost.clone() {
            let current = match &self.phase {
                Phase::Opening { session, .. } | Phase::Serving { session, .. } => *session == id,
                Phase::Claiming
                | Phase::Starting { .. }
                | Phase::Waiting { .. }
                | Phase::Stopped => false,
            };
            if current {
                let why = "AWS says that the session is over".to_owned();
                self.end_current(reason, &why, now);
                self.failure = Some(Failure::SessionClosed(why));
                let delay = match reason {
                    EndReason::TerminatedExternally => spread(self.options.external_end_delay),
                    EndReason::Deleted
                    | EndReason::Replaced
                    | EndReason::RelayLost
                    | EndReason::StartFailed
                    | EndReason::Broken
                    | EndReason::Unanswered
                    | EndReason::ClosedByService => self.backoff.next_delay(),
                };
                self.wait(delay, now);
            }
            self.over(&id, reason, now);
        }
    }

    pub(super) fn over(&mut self, id: &SessionId, reason: EndReason, now: Now) {
        if let Some(record) = self.sessions.handle_over(id, reason, now.wall) {
            let own = record.incarnation == self.options.incarnation;
            let reason = record.end.map_or(reason, |end| end.reason);
            self.actions.push_back(Action::Ended {
                id: id.clone(),
                reason,
                own,
            });
        }
    }

    pub(super) fn terminate_backoff(&self) -> Backoff {
        Backoff::new(self.options.backoff_min, self.options.backoff_max)
    }
}
