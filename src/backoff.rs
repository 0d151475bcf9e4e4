//! Delays that double, with jitter, so that what failed together is not tried again together.

use std::time::Duration;

/// After these the longest delay is reached, whatever the shortest is.
const DOUBLINGS_MAX: u32 = 20;

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

    /// The next delay.
    pub fn next_delay(&mut self) -> Duration {
        self.failures = self.failures.saturating_add(1);
        delay(self.min, self.max, self.failures)
    }

    /// It worked: the next delay is the first again.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

/// The delay after `failures` failures: `min` doubled each time, up to `max`, and then between a half and the whole of that.
#[must_use]
pub fn delay(min: Duration, max: Duration, failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(DOUBLINGS_MAX);
    halved(min.saturating_mul(1 << doublings).min(max))
}

/// Between a half of `pause` and the whole.
#[must_use]
pub fn halved(pause: Duration) -> Duration {
    pause.mul_f64(0.5 + fastrand::f64() / 2.0)
}

/// A pause of at least so long, and up to a quarter more: what one cause stopped together does not come back together.
#[must_use]
pub fn spread(pause: Duration) -> Duration {
    pause.mul_f64(1.0 + fastrand::f64() / 4.0)
}

/// `interval`, a tenth more or less, so that what began together does not stay together.
#[must_use]
pub fn jittered(interval: Duration) -> Duration {
    interval.mul_f64(0.9 + fastrand::f64() / 5.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIN: Duration = Duration::from_secs(1);
    const MAX: Duration = Duration::from_mins(5);

    #[test]
    fn delays_double_up_to_the_longest_and_stay_there() {
        let mut backoff = Backoff::new(MIN, MAX);
        for (failures, whole) in [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]
            .iter()
            .enumerate()
        {
            let (whole, delay) = (Duration::from_secs(*whole), backoff.next_delay());
            assert!(
                delay >= whole / 2 && delay <= whole,
                "{failures}: {delay:?}"
            );
        }
        assert!(delay(MIN, MAX, u32::MAX) >= MAX / 2);
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
