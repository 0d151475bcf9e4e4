//! Failures of each object, counted until it succeeds, and the delay that follows from them.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Exponential back-off with jitter for each object. An object that succeeds, or is gone, is forgotten.
#[derive(Debug)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    failures: Mutex<HashMap<String, u32>>,
}

impl Backoff {
    /// From `min` after the first failure to `max` after many.
    #[must_use]
    pub fn new(min: Duration, max: Duration) -> Self {
        Self {
            min,
            max,
            failures: Mutex::default(),
        }
    }

    /// Counts a failure of the object with this key and says how long to wait.
    #[must_use]
    pub fn failed(&self, key: &str) -> Duration {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let count = failures.entry(key.to_owned()).or_default();
        *count = count.saturating_add(1);
        delay(self.min, self.max, *count)
    }

    /// Forgets the failures of the object with this key.
    pub fn succeeded(&self, key: &str) {
        self.failures
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(key);
    }
}

/// The delay after `failures` failures: doubled each time, then between half and the whole of it.
///
/// The jitter keeps objects that failed together, such as all sessions of a denied role, from trying together.
#[must_use]
pub fn delay(min: Duration, max: Duration, failures: u32) -> Duration {
    let doubled = 2u32.saturating_pow(failures.saturating_sub(1).min(16));
    let full = min.saturating_mul(doubled).min(max);
    full.mul_f64(0.5 + fastrand::f64() / 2.0)
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
    fn a_delay_doubles_with_each_failure_and_stays_under_the_maximum() {
        for (failures, full) in [(1, 1), (2, 2), (5, 16), (9, 256), (10, 300), (1000, 300)] {
            let full = Duration::from_secs(full);
            let delay = delay(MIN, MAX, failures);
            assert!(delay >= full / 2 && delay <= full, "{failures}: {delay:?}");
        }
    }

    #[test]
    fn a_success_starts_the_count_afresh_for_that_object_only() {
        let backoff = Backoff::new(MIN, MAX);
        for _ in 0..8 {
            let _ = (backoff.failed("a"), backoff.failed("b"));
        }
        backoff.succeeded("a");
        assert!(backoff.failed("a") <= MIN);
        assert!(backoff.failed("b") > MIN * 64);
    }
}
