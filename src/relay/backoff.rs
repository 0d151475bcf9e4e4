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
