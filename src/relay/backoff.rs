//! Delays that double, with jitter, so that what failed together is not tried again together.

use std::time::Duration;

/// The delays of one thing that fails.
#[derive(Clone, Debug)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    failures: u32,
}

impl Backoff {
    /// Delays from about `min` to `max`.
    #[must_use]
    pub fn new(min: Duration, max: Duration) -> Self {
        Self {
            min,
            max,
            failures: 0,
        }
    }

    /// The next delay: between a half and the whole of what doubling has reached.
    pub fn next_delay(&mut self) -> Duration {
        let whole = self
            .min
            .saturating_mul(1 << self.failures.min(20))
            .min(self.max);
        self.failures = self.failures.saturating_add(1);
        whole.mul_f64(0.5 + fastrand::f64() / 2.0)
    }

    /// It worked: the next delay is the first again.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIN: Duration = Duration::from_secs(1);
    const MAX: Duration = Duration::from_mins(5);

    #[test]
    fn delays_double_up_to_the_longest_and_stay_there() {
        let mut backoff = Backoff::new(MIN, MAX);
        for failures in 0..100_u32 {
            let whole = MIN.saturating_mul(1 << failures.min(20)).min(MAX);
            let delay = backoff.next_delay();
            assert!(
                delay >= whole / 2 && delay <= whole,
                "{failures}: {delay:?}"
            );
        }
    }

    #[test]
    fn what_failed_together_is_not_tried_again_together() {
        let delays: std::collections::HashSet<_> = (0..100)
            .map(|_| Backoff::new(MIN, MAX).next_delay())
            .collect();
        assert!(
            delays.len() > 90,
            "{} different delays of 100",
            delays.len()
        );
    }

    #[test]
    fn success_makes_the_next_delay_the_first_again() {
        let mut backoff = Backoff::new(MIN, MAX);
        for _ in 0..10 {
            backoff.next_delay();
        }
        backoff.reset();
        assert!(backoff.next_delay() <= MIN);
    }

    #[test]
    fn the_longest_delay_counts_also_for_the_first() {
        assert!(Backoff::new(MAX, MIN).next_delay() <= MIN);
    }
}
