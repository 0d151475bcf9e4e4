//! Failures of each object, counted until it succeeds, and the delay that follows from them.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::backoff::delay;

/// Exponential back-off with jitter for each object. An object that succeeds, or is gone, is forgotten.
#[derive(Debug)]
pub struct Failures {
    min: Duration,
    max: Duration,
    failures: Mutex<HashMap<String, u32>>,
}

impl Failures {
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

#[cfg(test)]
mod tests {
    use super::*;

    const MIN: Duration = Duration::from_secs(1);
    const MAX: Duration = Duration::from_mins(5);

    #[test]
    fn a_success_starts_the_count_afresh_for_that_object_only() {
        let failures = Failures::new(MIN, MAX);
        for _ in 0..8 {
            let _ = (failures.failed("a"), failures.failed("b"));
        }
        failures.succeeded("a");
        assert!(failures.failed("a") <= MIN);
        assert!(failures.failed("b") > MIN * 64);
    }
}
