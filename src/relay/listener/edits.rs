//! How soon a wish that has changed is followed: at once, and then ever more rarely until a session has served for a while.
//! Who edits in a loop starts no sessions in a loop.

use tokio::time::Instant;

use super::Backoff;

/// The edits that were followed since a session last served for a while.
#[derive(Debug)]
pub(super) struct Edits {
    backoff: Backoff,
    not_before: Option<Instant>,
}

impl Edits {
    /// None so far; `backoff` says how far apart those are that follow.
    pub(super) fn new(backoff: Backoff) -> Self {
        Self {
            backoff,
            not_before: None,
        }
    }

    /// When an edit that came now may be followed.
    pub(super) fn due(&self, now: Instant) -> Instant {
        self.not_before.map_or(now, |at| at.max(now))
    }

    /// One is followed at `at`: the next waits for longer.
    pub(super) fn followed(&mut self, at: Instant) {
        self.not_before = Some(at + self.backoff.next_delay());
    }

    /// A session has served for a while.
    pub(super) fn reset(&mut self) {
        self.backoff.reset();
        self.not_before = None;
    }
}
