//! One count of what all sessions of the process keep in memory, and who may keep more.
//!
//! Half of the limit is the least of every session, with which it goes on
//! [frugally](crate::protocol::PortSession::set_frugal): none waits for others. The other half is for what sessions keep
//! beyond that. There a session has memory to spare while it keeps less than what is left: few busy sessions keep much,
//! many keep little, and whoever comes last still finds as much as each of them has.
//!
//! Shares of limit / sessions would not hold the limit: what a session has taken while it was alone can't be taken back
//! when others come for theirs, since it waits for a destination or for a client.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use prometheus_client::metrics::gauge::Gauge;

use super::metrics::Metrics;
use crate::protocol::memory::{FRUGAL_AHEAD_BYTES, FRUGAL_SEND_BYTES, FRUGAL_UNREAD_BYTES};

/// Bytes received in one turn of a session before others get theirs, and before it is looked whether it has memory to
/// spare.
pub(super) const TURN_BYTES_MAX: usize = 128 << 10;

/// What a session takes of its clients between two looks: one read, which fills a stream at most.
const CLIENT_STEP_BYTES: usize = 64 << 10;

/// The least that a session can do with.
pub const SESSION_BYTES_MIN: usize = FRUGAL_SEND_BYTES
    + CLIENT_STEP_BYTES
    + FRUGAL_UNREAD_BYTES
    + FRUGAL_AHEAD_BYTES
    + TURN_BYTES_MAX;

/// How much less than it might a frugal session has to keep before it is no longer frugal: it does not change to and fro
/// with each message.
const RELIEF_BYTES: i64 = 256 << 10;

/// How many sessions there may be so that the least of each is in its half of `buffers_max` bytes.
#[must_use]
pub fn sessions_max(buffers_max: usize) -> usize {
    buffers_max / 2 / SESSION_BYTES_MIN
}

/// What all sessions keep, and may keep.
#[derive(Debug)]
pub(super) struct Budget {
    /// The count itself, which is also what is shown.
    held: Gauge,
    /// What they keep beyond the least of each.
    excess: AtomicI64,
    excess_max: i64,
}

impl Budget {
    pub(super) fn new(bytes_max: usize, metrics: &Metrics) -> Self {
        Self {
            held: metrics.buffered(signed(bytes_max)),
            excess: AtomicI64::new(0),
            excess_max: signed(bytes_max / 2),
        }
    }

    /// A session that keeps nothing yet.
    pub(super) fn share(self: &Arc<Self>) -> Share {
        Share {
            budget: self.clone(),
            held: 0,
            frugal: false,
        }
    }
}

/// What one session keeps of it. Dropping it gives that back.
#[derive(Debug)]
pub(super) struct Share {
    budget: Arc<Budget>,
    held: i64,
    frugal: bool,
}

impl Share {
    /// The session keeps so many bytes now. Whether it has to be frugal.
    pub(super) fn settle(&mut self, held: usize) -> bool {
        let (held, before) = (signed(held), self.held);
        let (excess, excess_before) = (excess(held), excess(before));
        if held != before {
            self.budget.held.inc_by(held - before);
            self.held = held;
        }
        if excess != excess_before {
            let change = excess - excess_before;
            self.budget.excess.fetch_add(change, Ordering::Relaxed);
        }
        let left = self.budget.excess_max - self.budget.excess.load(Ordering::Relaxed);
        let relief = if self.frugal { RELIEF_BYTES } else { 0 };
        self.frugal = excess.saturating_add(relief) >= left;
        self.frugal
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.settle(0);
    }
}

/// What a session that keeps so many bytes keeps beyond the least.
fn excess(held: i64) -> i64 {
    held.saturating_sub(signed(SESSION_BYTES_MIN)).max(0)
}

fn signed(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const MIB: usize = 1 << 20;

    fn budget(bytes_max: usize) -> Arc<Budget> {
        Arc::new(Budget::new(bytes_max, &Metrics::default()))
    }

    /// Takes in steps for as long as there is memory to spare; what it keeps in the end.
    fn fill(share: &mut Share, mut held: usize, step: usize) -> usize {
        while !share.settle(held) {
            held += step;
        }
        held
    }

    #[test]
    fn one_session_keeps_half_of_what_is_beyond_the_least_of_all() {
        let mut share = budget(100 * MIB).share();
        let held = fill(&mut share, 0, 1024);
        assert_eq!(held, SESSION_BYTES_MIN + 25 * MIB);
    }

    #[test]
    fn equals_keep_the_same_and_leave_as_much_to_whoever_comes() {
        let budget = budget(100 * MIB);
        let mut shares: Vec<_> = (0..9).map(|_| (budget.share(), 0)).collect();
        // All take in turns, until none may.
        for _ in 0..10_000 {
            for (share, held) in &mut shares {
                if !share.settle(*held) {
                    *held += 1024;
                }
            }
        }
        let each = SESSION_BYTES_MIN + 50 * MIB / 10;
        for (_, held) in &shares {
            assert!(held.abs_diff(each) < MIB, "{held} of {each}");
        }
        let held = fill(&mut budget.share(), 0, 1024);
        assert!(held > each / 2, "{held} of {each}");
    }

    #[test]
    fn a_session_is_frugal_until_it_is_well_below_what_it_may_keep() {
        let budget = budget(100 * MIB);
        let (mut one, mut other) = (budget.share(), budget.share());
        assert!(!other.settle(SESSION_BYTES_MIN + 20 * MIB));
        assert!(!one.settle(SESSION_BYTES_MIN + 14 * MIB));
        assert!(one.settle(SESSION_BYTES_MIN + 15 * MIB));
        assert!(
            one.settle(SESSION_BYTES_MIN + 15 * MIB - 1024),
            "not at once"
        );
        assert!(!one.settle(SESSION_BYTES_MIN + 14 * MIB));
    }

    #[test]
    fn a_session_that_ends_gives_back_what_it_kept() {
        let budget = budget(100 * MIB);
        let (mut one, mut other) = (budget.share(), budget.share());
        one.settle(60 * MIB);
        assert!(other.settle(0), "nothing is left");
        drop(one);
        assert!(!other.settle(0));
        assert_eq!(budget.held.get(), 0);
        assert_eq!(budget.excess.load(Ordering::Relaxed), 0);
    }

    proptest! {
        /// Each takes a step where it has memory to spare, or keeps less than the least; gives back; or ends.
        #[test]
        fn the_limit_holds_whoever_comes_when(
            turns in vec((0..40_usize, 0..10_u8), 1..4000),
        ) {
            const LIMIT: usize = 2 * SESSIONS_MAX * SESSION_BYTES_MIN;
            const SESSIONS_MAX: usize = 32;
            const STEP: usize = TURN_BYTES_MAX;
            prop_assert_eq!(sessions_max(LIMIT), SESSIONS_MAX);
            let budget = budget(LIMIT);
            let mut sessions: Vec<(Share, usize)> = Vec::new();
            for (index, what) in turns {
                let full = sessions.len() == SESSIONS_MAX;
                match sessions.get_mut(index) {
                    None if full => {}
                    None => sessions.push((budget.share(), 0)),
                    Some(_) if what == 0 => drop(sessions.swap_remove(index)),
                    Some((share, held)) => {
                        if what == 1 {
                            *held /= 2;
                        }
                        let frugal = share.settle(*held);
                        if !frugal || *held + STEP <= SESSION_BYTES_MIN {
                            *held += STEP;
                            share.settle(*held);
                        }
                    }
                }
                prop_assert!(budget.held.get() <= signed(LIMIT + STEP));
                let sum: usize = sessions.iter().map(|(_, held)| held).sum();
                prop_assert_eq!(budget.held.get(), signed(sum));
            }
        }
    }
}
