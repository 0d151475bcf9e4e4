//! What a listener's machine gives: what is to be done, when it wants to be asked again, and what it says of itself.

use tokio::time::Instant;

use super::{Action, EndReason, Failure, Listener, Now, Phase, Report, State, Stop};

impl Listener {
    /// What is to be done next.
    pub fn poll_action(&mut self, now: Now) -> Option<Action> {
        if let Some(action) = self.actions.pop_front() {
            return Some(action);
        }
        let (id, identity) = self.sessions.poll_terminate(now.monotonic)?;
        Some(Action::Terminate(id, identity))
    }

    /// When [`Self::handle_timeout`], and then [`Self::poll_action`] and [`Self::report`], are due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let phase = match &self.phase {
            Phase::Waiting { until } => Some(*until),
            Phase::Opening {
                recorded,
                established,
                deadlines,
                ..
            } => {
                let recorded = (!recorded).then_some(deadlines.recorded);
                let established = (!established).then_some(deadlines.established);
                recorded.into_iter().chain(established).min()
            }
            Phase::Claiming | Phase::Starting { .. } | Phase::Serving { .. } | Phase::Stopped => {
                None
            }
        };
        let sessions = self.sessions.poll_timeout();
        phase
            .into_iter()
            .chain(sessions)
            .chain(self.unready_at)
            .chain(self.destination_due())
            .min()
    }

    /// The number of the present claim, if one awaits its record.
    #[must_use]
    pub fn awaited_claim(&self) -> Option<u64> {
        let ready = self.stopping.is_none() && self.port.is_some();
        let claiming = matches!(self.phase, Phase::Claiming);
        (claiming && ready && self.has_room()).then_some(self.claim)
    }

    /// The number of the present claim.
    #[must_use]
    pub fn claim(&self) -> u64 {
        self.claim
    }

    /// Whether it was stopped, and is being or has been taken down.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stopping.is_some()
    }

    /// Whether nothing is left to do, but to record that.
    #[must_use]
    pub fn is_over(&self) -> bool {
        // What AWS refuses to end stays with whoever has the record next, or with the sweeper.
        let is_left = self.leaving || matches!(self.stopping, Some((Stop::Disowned, _)));
        let awaited = if is_left {
            self.sessions.unrefused_count()
        } else {
            self.sessions.live_count()
        };
        matches!(self.phase, Phase::Stopped) && awaited == 0
    }

    /// How many sessions AWS has not yet said to be over.
    #[must_use]
    pub fn sessions_live(&self) -> usize {
        self.sessions.live_count()
    }

    /// The whole truth. The same state gives an equal report.
    #[must_use]
    pub fn report(&self) -> Report {
        Report {
            generation: self.spec.generation,
            port: self.port,
            state: self.state(),
            ready: self.port.is_some() && !self.unready && self.stopping.is_none(),
            sessions: self.sessions.records(),
            failure: self.failure.clone(),
            retry_at: self.retry_at,
            destination: self.destination,
        }
    }

    /// Why a start came to nothing, if its session was ended for this reason: for a trace.
    #[must_use]
    pub fn summary(&self, reason: EndReason) -> String {
        let failed = reason == EndReason::StartFailed;
        let failure = self.failure.as_ref().filter(|_| failed);
        failure.map_or_else(|| format!("{reason:?}"), Failure::summary)
    }

    fn state(&self) -> State {
        match (&self.phase, self.stopping) {
            (Phase::Stopped, Some((Stop::Final, _))) if self.sessions.live_count() == 0 => {
                State::Ended
            }
            (_, Some(_)) | (Phase::Stopped | Phase::Waiting { .. }, None) => State::Waiting,
            (Phase::Serving { .. }, None) => State::Serving,
            (Phase::Claiming | Phase::Starting { .. } | Phase::Opening { .. }, None) => {
                State::Starting
            }
        }
    }
}
