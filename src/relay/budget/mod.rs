//! One count of what all sessions of the process keep in memory, and who may keep more.
//!
//! Two thirds of the limit are the least of every session, with which it goes on
//! [frugally](crate::protocol::PortSession::set_frugal): none waits for others. The last third is for what sessions keep
//! beyond that. There a session has memory to spare while it keeps less than what is left: few busy sessions keep much,
//! many keep little, and whoever comes last still finds as much as each of them has.
//!
//! Shares of limit / sessions would not hold the limit: what a session has taken while it was alone can't be taken back
//! when others come for theirs, since it waits for a destination or for a client.
//!
//! What a session has whatever goes through it is not counted: its websocket, TLS, and the last acknowledgements.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use prometheus_client::metrics::gauge::Gauge;

use super::metrics::Metrics;
use super::websocket::MESSAGE_BYTES_MAX;
use crate::protocol::memory::{FRUGAL_AHEAD_BYTES, FRUGAL_SEND_BYTES, FRUGAL_UNREAD_BYTES};

/// Bytes received in one turn of a session before others get theirs, and before it is looked whether it has memory to
/// spare.
pub(super) const TURN_BYTES_MAX: usize = 128 << 10;

/// What a session takes of its clients between two looks: one read, which fills a stream at most.
const CLIENT_STEP_BYTES: usize = 64 << 10;

/// What was taken of clients grows by half on its way: each kilobyte of it has a header and a place, and the buffer that it
/// leaves is given back in steps.
const OUTGOING_BYTES: usize = 3 * (FRUGAL_SEND_BYTES + CLIENT_STEP_BYTES) / 2;

/// What clients have not taken grows by a message at most once it may not grow any more, and has a quarter to spare.
const UNREAD_BYTES: usize = (FRUGAL_UNREAD_BYTES + MESSAGE_BYTES_MAX) / 4 * 5;

/// Acknowledgements that wait for a websocket, those among them that the last websocket may have lost.
const ACKNOWLEDGEMENTS_BYTES: usize = 72 << 10;

/// The least that a session can do with.
const SESSION_BYTES_MIN: usize =
    OUTGOING_BYTES + UNREAD_BYTES + FRUGAL_AHEAD_BYTES + ACKNOWLEDGEMENTS_BYTES;

/// How much less than it might a frugal session has to keep before it is no longer frugal: it does not change to and fro
/// with each message.
const RELIEF_BYTES: i64 = 256 << 10;

/// How many sessions there may be so that the least of each is in its part of `buffers_max` bytes.
#[must_use]
pub fn sessions_max(buffers_max: usize) -> usize {
    buffers_max / 3 * 2 / SESSION_BYTES_MIN
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
            excess_max: signed(bytes_max / 3),
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
mod tests;
