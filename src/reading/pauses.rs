//! Pauses between tries: each about twice as long as the one before, with jitter, up to a limit.

use std::time::Duration;

/// An endless row of pauses.
#[derive(Clone, Debug)]
pub struct Pauses {
    min: Duration,
    max: Duration,
    next: Duration,
}

impl Pauses {
    /// Pauses from `min` to `max`.
    #[must_use]
    pub fn new(min: Duration, max: Duration) -> Self {
        Self {
            min,
            max,
            next: min.min(max),
        }
    }

    /// The next pause: half of what is due at least, so that many relays do not come back in step.
    pub fn next_pause(&mut self) -> Duration {
        let due = self.next;
        self.next = (due * 2).min(self.max);
        due.mul_f64(0.5 + fastrand::f64() / 2.0)
    }

    /// What was tried has succeeded: the next pause is a short one.
    pub fn begin_anew(&mut self) {
        self.next = self.min.min(self.max);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_limit_and_begin_anew_after_success() {
        let mut pauses = Pauses::new(Duration::from_secs(1), Duration::from_secs(5));
        for due in [1, 2, 4, 5, 5].map(Duration::from_secs) {
            let pause = pauses.next_pause();
            assert!(due / 2 <= pause && pause <= due, "{pause:?} of {due:?}");
        }
        pauses.begin_anew();
        assert!(pauses.next_pause() <= Duration::from_secs(1));
    }
}
