//! The rate limiter that all calls of one identity pass.
//!
//! It promises that a burst of pages, or of terminations, never delays a call for which clients wait by more than one of
//! each: they queue among themselves first, and only the foremost of them stands in the common queue. That queue is first
//! come, first served, so none starves. Throttling halves the rate for everybody, and it recovers slowly.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout_at};

/// A rate that was throttled is raised by a third after each such time without throttling.
const EASE_EVERY: Duration = Duration::from_secs(10);
/// Calls that were in flight together are throttled together; within this time they halve the rate once.
const HALVE_EVERY: Duration = Duration::from_secs(1);
/// The slowest rate: still enough to notice within a caller's deadline that throttling is over.
const INTERVAL_MAX: Duration = Duration::from_secs(5);

/// In which queue a call waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    /// StartSession, ResumeSession: clients wait for them.
    Session,
    /// TerminateSession.
    End,
    /// Pages of DescribeSessions.
    Page,
}

/// When the next call may go out: a machine without clock, exact in whole nanoseconds.
#[derive(Debug)]
struct Pace {
    /// Time between two calls now.
    interval: Duration,
    /// Time between two calls when nothing is throttled.
    interval_min: Duration,
    /// How many calls may go out at once after a quiet time.
    burst: u32,
    /// When the calls that went out are paid for; in the future while the burst is partly used up.
    paid_at: Instant,
    /// When the rate was last changed.
    changed_at: Instant,
    throttled_at: Option<Instant>,
}

impl Pace {
    fn new(calls_per_second: u32, burst: u32, now: Instant) -> Self {
        let interval = Duration::from_secs(1) / calls_per_second.max(1);
        Self {
            interval,
            interval_min: interval,
            burst: burst.max(1),
            paid_at: now,
            changed_at: now,
            throttled_at: None,
        }
    }

    /// Takes a call's turn, or says when to ask again.
    fn take(&mut self, now: Instant) -> Result<(), Instant> {
        self.ease(now);
        let ahead = self.interval * (self.burst - 1);
        if self.paid_at > now + ahead {
            return Err(self.paid_at - ahead);
        }
        self.paid_at = self.paid_at.max(now) + self.interval;
        Ok(())
    }

    /// Halves the rate and gives up the burst: the next call waits a whole interval.
    fn throttled(&mut self, now: Instant) {
        if self.throttled_at.is_some_and(|at| now < at + HALVE_EVERY) {
            return;
        }
        self.interval = (self.interval * 2).min(INTERVAL_MAX.max(self.interval_min));
        self.paid_at = now + self.interval * self.burst;
        self.changed_at = now;
        self.throttled_at = Some(now);
    }

    fn ease(&mut self, now: Instant) {
        while self.interval > self.interval_min && now >= self.changed_at + EASE_EVERY {
            let eased = (self.interval * 3 / 4).max(self.interval_min);
            self.changed_at += EASE_EVERY;
            // What is owed was reckoned at the slower rate; left as it is, the next turn would move away.
            let owed = self.paid_at.saturating_duration_since(self.changed_at);
            let owed = (owed.as_nanos() * eased.as_nanos()).div_ceil(self.interval.as_nanos());
            let owed = Duration::from_nanos(u64::try_from(owed).unwrap_or(u64::MAX));
            self.paid_at = self.paid_at.min(self.changed_at + owed);
            self.interval = eased;
        }
    }
}

/// The deadline would pass before it is this call's turn; nothing was sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Overdue;

/// A [`Pace`] and the queues before it.
pub(super) struct Limiter {
    pace: Mutex<Pace>,
    /// Tokio's mutexes are fair: who asks first is served first.
    queue: tokio::sync::Mutex<()>,
    ends: tokio::sync::Mutex<()>,
    pages: tokio::sync::Mutex<()>,
}

impl Limiter {
    pub(super) fn new(calls_per_second: u32, burst: u32) -> Self {
        Self {
            pace: Mutex::new(Pace::new(calls_per_second, burst, Instant::now())),
            queue: tokio::sync::Mutex::new(()),
            ends: tokio::sync::Mutex::new(()),
            pages: tokio::sync::Mutex::new(()),
        }
    }

    /// Waits for a turn until `deadline`. Dropping the future gives up the place in the queue and uses up nothing.
    pub(super) async fn turn(&self, lane: Lane, deadline: Instant) -> Result<(), Overdue> {
        timeout_at(deadline, self.wait(lane))
            .await
            .map_err(|_| Overdue)
    }

    async fn wait(&self, lane: Lane) {
        let _foremost_of_its_kind = match lane {
            Lane::Session => None,
            Lane::End => Some(self.ends.lock().await),
            Lane::Page => Some(self.pages.lock().await),
        };
        let _foremost = self.queue.lock().await;
        // The rate may change while the foremost waits, so it asks again instead of trusting its first answer.
        loop {
            let turn = self.pace().take(Instant::now());
            match turn {
                Ok(()) => return,
                Err(at) => sleep_until(at).await,
            }
        }
    }

    /// AWS throttled a call.
    pub(super) fn throttled(&self) {
        self.pace().throttled(Instant::now());
    }

    /// No code that holds the lock can panic half-way, so a poisoned pace is a sound one.
    fn pace(&self) -> std::sync::MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use tokio::sync::mpsc;

    use super::*;

    fn far() -> Instant {
        Instant::now() + Duration::from_hours(1)
    }

    /// How long after `start` each of `calls` calls goes out when all ask at once.
    fn departures(pace: &mut Pace, start: Instant, calls: usize) -> Vec<Duration> {
        let mut now = start;
        std::iter::repeat_with(|| {
            while let Err(at) = pace.take(now) {
                now = at;
            }
            now - start
        })
        .take(calls)
        .collect()
    }

    fn millis(values: &[u64]) -> Vec<Duration> {
        values.iter().copied().map(Duration::from_millis).collect()
    }

    #[test]
    fn a_burst_goes_out_at_once_and_the_rest_at_the_rate() {
        let now = Instant::now();
        let mut pace = Pace::new(10, 3, now);
        assert_eq!(
            departures(&mut pace, now, 6),
            millis(&[0, 0, 0, 100, 200, 300])
        );
        let later = now + Duration::from_secs(10);
        assert_eq!(departures(&mut pace, later, 4), millis(&[0, 0, 0, 100]));
    }

    #[test]
    fn throttling_halves_the_rate_once_and_takes_the_burst_away() {
        let now = Instant::now();
        let mut pace = Pace::new(10, 3, now);
        pace.throttled(now);
        pace.throttled(now + Duration::from_millis(900));
        assert_eq!(departures(&mut pace, now, 3), millis(&[200, 400, 600]));
        let later = now + HALVE_EVERY;
        pace.throttled(later);
        assert_eq!(departures(&mut pace, later, 2), millis(&[400, 800]));
    }

    #[test]
    fn the_rate_never_falls_to_nothing_and_recovers_step_by_step() {
        let mut now = Instant::now();
        let mut pace = Pace::new(10, 1, now);
        for _ in 0..20 {
            pace.throttled(now);
            now += HALVE_EVERY;
        }
        assert_eq!(pace.interval, INTERVAL_MAX);
        let mut intervals = Vec::new();
        for _ in 0..20 {
            now += EASE_EVERY;
            pace.ease(now);
            intervals.push(pace.interval);
        }
        assert!(
            intervals.windows(2).all(|pair| pair[1] <= pair[0]),
            "{intervals:?}"
        );
        assert_eq!(pace.interval, pace.interval_min);
    }

    proptest! {
        #[test]
        fn after_throttling_the_next_turn_is_never_further_away_than_it_was(
            rate in 1_u32..50, burst in 1_u32..30, throttles in 1_u32..8,
        ) {
            let start = Instant::now();
            let mut pace = Pace::new(rate, burst, start);
            let mut now = start;
            for _ in 0..throttles {
                pace.throttled(now);
                now += HALVE_EVERY;
            }
            let slowest = pace.interval;
            let out = departures(&mut pace, now, 300);
            for pair in out.windows(2) {
                prop_assert!(pair[1] <= pair[0] + slowest, "{pair:?}: more than {slowest:?}");
            }
        }

        #[test]
        fn no_second_has_more_calls_than_burst_and_rate(
            rate in 1_u32..50, burst in 1_u32..30, calls in 1_usize..200, throttles in 0_usize..4,
        ) {
            let now = Instant::now();
            let mut pace = Pace::new(rate, burst, now);
            for _ in 0..throttles {
                pace.throttled(now);
            }
            let out = departures(&mut pace, now, calls);
            for (first, from) in out.iter().enumerate() {
                let within = out[first..].iter().filter(|at| **at < *from + Duration::from_secs(1)).count();
                prop_assert!(within <= (burst + rate) as usize);
            }
        }
    }

    /// Starts a call of `lane` that reports `name` when it goes out.
    fn queue_up(
        limiter: &Arc<Limiter>,
        lane: Lane,
        name: &'static str,
        out: &mpsc::UnboundedSender<&'static str>,
    ) {
        let (limiter, out) = (limiter.clone(), out.clone());
        tokio::spawn(async move {
            limiter.turn(lane, far()).await.unwrap();
            out.send(name).unwrap();
        });
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_clients_waiting_waits_for_one_page_and_one_termination_at_most() {
        let limiter = Arc::new(Limiter::new(1, 1));
        limiter.turn(Lane::Session, far()).await.unwrap();
        let (out, mut went_out) = mpsc::unbounded_channel();
        for _ in 0..100 {
            queue_up(&limiter, Lane::Page, "page", &out);
        }
        tokio::task::yield_now().await;
        for _ in 0..100 {
            queue_up(&limiter, Lane::End, "terminate", &out);
        }
        tokio::task::yield_now().await;
        queue_up(&limiter, Lane::Session, "start", &out);
        let mut order = Vec::new();
        for _ in 0..5 {
            order.push(went_out.recv().await.unwrap());
        }
        assert_eq!(order, ["page", "terminate", "start", "page", "terminate"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_page_is_served_in_its_turn_among_calls_on_sessions() {
        let limiter = Arc::new(Limiter::new(1, 1));
        limiter.turn(Lane::Session, far()).await.unwrap();
        let (out, mut went_out) = mpsc::unbounded_channel();
        for name in ["start 1", "start 2"] {
            queue_up(&limiter, Lane::Session, name, &out);
        }
        tokio::task::yield_now().await;
        queue_up(&limiter, Lane::Page, "page", &out);
        tokio::task::yield_now().await;
        queue_up(&limiter, Lane::Session, "start 3", &out);
        let mut order = Vec::new();
        for _ in 0..4 {
            order.push(went_out.recv().await.unwrap());
        }
        assert_eq!(order, ["start 1", "start 2", "page", "start 3"]);
    }

    #[tokio::test(start_paused = true)]
    async fn who_would_wait_past_its_deadline_is_told_and_uses_up_nothing() {
        let limiter = Limiter::new(1, 1);
        limiter.turn(Lane::Session, far()).await.unwrap();
        let soon = Instant::now() + Duration::from_millis(500);
        assert_eq!(limiter.turn(Lane::Session, soon).await, Err(Overdue));
        let start = Instant::now();
        limiter.turn(Lane::Session, far()).await.unwrap();
        assert_eq!(start.elapsed(), Duration::from_millis(500));
    }
}
