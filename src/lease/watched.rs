//! Another's Lease, as one process has seen it: a machine without I/O, over what looks showed and this process's own
//! monotonic clock.
//!
//! No clock of another machine is compared with ours: whoever has seen a Lease unchanged for the whole time that it was
//! promised for knows that it has run out. Nor is a Lease believed to be renewed before it was seen to change: one that
//! the first look finds may have been left there long ago.

use std::time::Duration;

use tokio::time::Instant;

/// What is known of one Lease.
///
/// `V` is its version, as its watcher tells versions apart: another one with each renewal, compared with nothing but the
/// one before.
#[derive(Clone, Debug)]
pub struct Watched<V> {
    /// What the last look showed, which is nothing where there is no Lease, and since when looks have shown that.
    seen: Option<(Option<V>, Instant)>,
    confirmed: bool,
}

impl<V> Default for Watched<V> {
    /// A Lease that was not looked for yet.
    fn default() -> Self {
        Self {
            seen: None,
            confirmed: false,
        }
    }
}

impl<V: PartialEq> Watched<V> {
    /// The API server has shown this version, or that there is no Lease. Whether that is news, as it is at the first look.
    pub fn handle_look(&mut self, version: Option<V>, now: Instant) -> bool {
        let is_news = match &self.seen {
            Some((seen, _)) => *seen != version,
            None => true,
        };
        if is_news {
            self.confirmed = self.seen.is_some();
            self.seen = Some((version, now));
        }
        is_news
    }

    /// The API server was out of reach until now: the Lease may have been renewed meanwhile, so its time is counted afresh.
    pub fn handle_unreachable(&mut self, now: Instant) {
        if let Some((_, since)) = &mut self.seen {
            *since = now;
        }
    }

    /// For how long it is as it is, as far as this process knows: it has run out when that is as long as was promised.
    #[must_use]
    pub fn unchanged_for(&self, now: Instant) -> Duration {
        let seen = self.seen.as_ref();
        seen.map_or(Duration::ZERO, |(_, since)| now.duration_since(*since))
    }

    /// Whether somebody wrote it while this process looked on: it was seen to appear or to change.
    #[must_use]
    pub fn is_confirmed(&self) -> bool {
        self.confirmed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// A Lease that looks showed in these versions, a second apart; and when the last look was.
    fn watched(looks: &[Option<u32>]) -> (Watched<u32>, Instant) {
        let (mut watched, mut now) = (Watched::default(), Instant::now());
        for look in looks {
            now += SECOND;
            watched.handle_look(*look, now);
        }
        (watched, now)
    }

    #[test]
    fn what_the_first_look_finds_may_be_old_and_whatever_changes_afterwards_is_not() {
        for old in [&[][..], &[None], &[Some(1)], &[Some(1), Some(1)]] {
            assert!(!watched(old).0.is_confirmed(), "{old:?}");
        }
        let written = [
            &[None, Some(1)][..],
            &[Some(1), Some(2)],
            &[Some(1), Some(2), Some(2)],
        ];
        for written in written {
            assert!(watched(written).0.is_confirmed(), "{written:?}");
        }
    }

    #[test]
    fn its_time_runs_from_the_first_look_that_showed_it_as_it_is() {
        for (looks, seconds) in [
            (&[][..], 0),
            (&[Some(1)], 0),
            (&[Some(1), Some(1), Some(1)], 2),
            (&[Some(1), Some(2), Some(2)], 1),
            (&[Some(1), None, Some(1)], 0),
            (&[None, None], 1),
        ] {
            let (watched, now) = watched(looks);
            assert_eq!(watched.unchanged_for(now), seconds * SECOND, "{looks:?}");
        }
    }

    #[test]
    fn the_time_without_an_api_server_does_not_count_and_is_no_renewal() {
        let (mut watched, mut now) = watched(&[Some(1), Some(1)]);
        now += 100 * SECOND;
        watched.handle_unreachable(now);
        assert_eq!(watched.unchanged_for(now + SECOND), SECOND);
        assert!(!watched.handle_look(Some(1), now + SECOND));
        assert_eq!(watched.unchanged_for(now + 2 * SECOND), 2 * SECOND);
        assert!(!watched.is_confirmed());
    }

    #[test]
    fn a_look_tells_whether_it_brought_news() {
        let (mut watched, now) = watched(&[]);
        let looks = [
            (None, true),
            (None, false),
            (Some(1), true),
            (Some(1), false),
            (Some(2), true),
            (None, true),
        ];
        for (look, is_news) in looks {
            assert_eq!(watched.handle_look(look, now), is_news, "{look:?}");
        }
    }
}
