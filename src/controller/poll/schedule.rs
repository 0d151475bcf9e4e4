//! When an identity is polled next, and for how long after nobody names it any more: pure, with `now` as an argument.
//!
//! A start whose answer was lost may leave a session that only the sweeper finds, and often AWS is away just then. So
//! an identity is not forgotten by time alone, but once it was really looked at for as long as the sweeper needs.
//!
//! All this is forgotten with the process. A deleted listener of a relay that died while it was starting stays for two
//! graces, so that a controller that was restarted meanwhile finds the identity there. What is lost is an identity that
//! nothing names any more: a relay died between StartSession and its record, the class was edited to another identity or
//! deleted, its listeners follow, and the controller is restarted before two graces are over. Then AWS ends the session.

use std::time::Duration;

use tokio::time::Instant;

use crate::backoff::{delay, jittered};

/// How long an identity that nobody names is polled at most: after a day without two complete polls its role or
/// endpoint is gone for good, and AWS has ended what was started with it.
const UNNAMED_MAX: Duration = Duration::from_hours(24);

/// One identity's turn.
#[derive(Debug)]
pub struct Schedule {
    due: Instant,
    named: Instant,
    /// The first complete poll since it was named last, and the newest.
    complete: Option<(Instant, Instant)>,
    failures: u32,
}

impl Schedule {
    /// Of an identity that is named for the first time: due at once.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            due: now,
            named: now,
            complete: None,
            failures: 0,
        }
    }

    /// When it is to be polled.
    #[must_use]
    pub fn due(&self) -> Instant {
        self.due
    }

    /// A class, a listener or a look-up names it.
    pub fn handle_named(&mut self, now: Instant) {
        self.named = now;
        self.complete = None;
    }

    /// A poll has ended; the next comes after `interval`, or ever later while they fail, sixteen intervals at most.
    pub fn handle_poll(&mut self, is_complete: bool, interval: Duration, now: Instant) {
        if is_complete {
            self.failures = 0;
            let (first, _) = self.complete.unwrap_or((now, now));
            self.complete = Some((first, now));
            self.due = now + jittered(interval);
        } else {
            self.failures = self.failures.saturating_add(1);
            let pause = delay(interval, interval * 16, self.failures + 1);
            self.due = now + pause.max(interval);
        }
    }

    /// Whether it is polled on: until two graces after it was named last, and until two complete polls since then were
    /// a grace apart and left nothing `suspected`; a day at most.
    #[must_use]
    pub fn is_kept(&self, suspected: bool, grace: Duration, now: Instant) -> bool {
        let unnamed = now.duration_since(self.named);
        let apart = |(first, last): (Instant, Instant)| last.duration_since(first) > grace;
        let was_looked_at = self.complete.is_some_and(apart);
        unnamed <= UNNAMED_MAX && (unnamed <= 2 * grace || !was_looked_at || suspected)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const GRACE: Duration = Duration::from_mins(1);

    /// The schedule of an identity that was named once, and when.
    fn unnamed() -> (Schedule, Instant) {
        let start = Instant::now();
        (Schedule::new(start), start)
    }

    #[test]
    fn an_identity_is_kept_while_it_is_named_and_for_two_graces_longer() {
        let (mut schedule, start) = unnamed();
        for polls in 1..100 {
            let now = start + polls * 20 * SECOND;
            schedule.handle_named(now);
            assert!(schedule.is_kept(false, GRACE, now));
            schedule.handle_poll(true, 20 * SECOND, now);
        }
        let named = start + 99 * 20 * SECOND;
        schedule.handle_poll(true, 20 * SECOND, named + 61 * SECOND);
        assert!(schedule.is_kept(false, GRACE, named + 120 * SECOND));
        assert!(!schedule.is_kept(false, GRACE, named + 121 * SECOND));
    }

    #[test]
    fn while_aws_is_away_an_identity_that_nobody_names_is_not_forgotten() {
        let (mut schedule, start) = unnamed();
        for minutes in 1..60 {
            schedule.handle_poll(false, 20 * SECOND, start + minutes * GRACE);
        }
        let back = start + 60 * GRACE;
        assert!(schedule.is_kept(false, GRACE, back));
        schedule.handle_poll(true, 20 * SECOND, back);
        assert!(
            schedule.is_kept(false, GRACE, back),
            "one look is not enough"
        );
        schedule.handle_poll(true, 20 * SECOND, back + 61 * SECOND);
        let now = back + 61 * SECOND;
        assert!(schedule.is_kept(true, GRACE, now), "something is suspected");
        assert!(!schedule.is_kept(false, GRACE, now));
    }

    #[test]
    fn what_is_away_for_a_day_is_forgotten_all_the_same() {
        let (schedule, start) = unnamed();
        assert!(schedule.is_kept(true, GRACE, start + UNNAMED_MAX));
        assert!(!schedule.is_kept(true, GRACE, start + UNNAMED_MAX + SECOND));
    }

    #[test]
    fn failing_polls_come_ever_later_and_a_complete_one_ends_that() {
        let (mut schedule, start) = unnamed();
        for _ in 0..20 {
            schedule.handle_poll(false, 20 * SECOND, start);
            let pause = schedule.due() - start;
            assert!(pause >= 20 * SECOND && pause <= 320 * SECOND, "{pause:?}");
        }
        assert!(schedule.due() - start >= 160 * SECOND);
        schedule.handle_poll(true, 20 * SECOND, start);
        assert!(schedule.due() - start <= 22 * SECOND);
    }
}
