//! The AWS sessions of one listener, from StartSession's answer to TerminateSession's.
//!
//! A session stays on record as live until AWS has said that it is over, so that nothing forgets it; of those that an
//! earlier run left and AWS refuses to end, 32 do. What an earlier run left is ended only once this run has put something
//! on record: until then another relay may own the listener, and those sessions may serve its clients.

use jiff::Timestamp;
use tokio::time::Instant;

use super::report::{EndReason, SessionEnd, SessionRecord};
use crate::backoff::Backoff;
use crate::broker::{Identity, SessionId};

#[cfg(test)]
mod tests;

/// Ended sessions kept on record.
const ENDED_MAX: usize = 5;

/// Sessions of earlier runs kept on record though AWS refuses to end them. With all others a report stays below the 64
/// that are taken: who left more of them must not keep this run from recording its own. What is not on record and has our
/// marker is found by that.
const REFUSED_MAX: usize = 32;

/// Live sessions and the last that ended.
#[derive(Debug, Default)]
pub struct Sessions {
    live: Vec<Live>,
    ended: Vec<SessionRecord>,
    /// Whether a report of this run is on record, which proves that the listener is this relay's.
    on_record: bool,
}

#[derive(Debug)]
struct Live {
    record: SessionRecord,
    /// An earlier run has recorded it.
    inherited: bool,
    termination: Option<Termination>,
}

/// A session on its way out: TerminateSession is called until it is answered without error.
#[derive(Debug)]
struct Termination {
    reason: EndReason,
    message: String,
    calling: bool,
    /// AWS has said that it will not do this for us, whatever may change about that.
    refused: bool,
    call_at: Instant,
    backoff: Backoff,
}

impl Live {
    /// Whether AWS refuses to end it for us.
    fn is_refused(&self) -> bool {
        let termination = self.termination.as_ref();
        termination.is_some_and(|termination| termination.refused)
    }

    /// Whether it is not this run's doing that it lasts: an earlier one has recorded it, and AWS refuses to end it for us.
    fn is_left_over(&self) -> bool {
        self.inherited && self.is_refused()
    }
}

impl Sessions {
    /// Takes over what earlier runs recorded: their live sessions are to be terminated, once
    /// [`Self::handle_recorded`] has said that they are ours. One that is recorded twice is one: what ends it ends it once.
    #[must_use]
    pub fn inherit(records: Vec<SessionRecord>, now: Instant, backoff: &Backoff) -> Self {
        let mut sessions = Self::default();
        for record in records {
            if record.end.is_some() {
                sessions.ended.push(record);
            } else {
                let id = record.session_id.clone();
                if sessions.find(&id).is_some() {
                    continue;
                }
                sessions.live.push(Live {
                    record,
                    inherited: true,
                    termination: None,
                });
                sessions.terminate(&id, EndReason::RelayLost, "", now, backoff);
            }
        }
        sessions.ended.truncate(ENDED_MAX);
        sessions
    }

    /// A report of this run is on record.
    pub fn handle_recorded(&mut self) {
        self.on_record = true;
    }

    /// The listener is another relay's. What was inherited without ever being ours is left to its owner.
    pub fn handle_disowned(&mut self) {
        if !self.on_record {
            self.live.clear();
        }
    }

    /// A session was started.
    pub fn add(&mut self, record: SessionRecord) {
        self.live.push(Live {
            record,
            inherited: false,
            termination: None,
        });
    }

    /// A session is no longer wanted, or no longer there: TerminateSession is called from now on. The first reason
    /// stands.
    pub fn terminate(
        &mut self,
        id: &SessionId,
        reason: EndReason,
        message: &str,
        now: Instant,
        backoff: &Backoff,
    ) {
        if let Some(live) = self.find(id) {
            live.termination.get_or_insert_with(|| Termination {
                reason,
                message: message.to_owned(),
                calling: false,
                refused: false,
                call_at: now,
                backoff: backoff.clone(),
            });
        }
    }

    /// All live sessions are no longer wanted.
    pub fn terminate_all(&mut self, reason: EndReason, now: Instant, backoff: &Backoff) {
        let ids: Vec<_> = self
            .live
            .iter()
            .map(|live| live.record.session_id.clone())
            .collect();
        for id in ids {
            self.terminate(&id, reason, "", now, backoff);
        }
    }

    /// The next session for which TerminateSession is due; it is not given again until the call is answered.
    pub fn poll_terminate(&mut self, now: Instant) -> Option<(SessionId, Identity)> {
        if !self.on_record {
            return None;
        }
        self.live.iter_mut().find_map(|live| {
            let termination = live.termination.as_mut()?;
            if termination.calling || now < termination.call_at {
                return None;
            }
            termination.calling = true;
            Some((live.record.session_id.clone(), live.record.identity.clone()))
        })
    }

    /// TerminateSession failed, and is called again after a delay. `refused`: AWS will not do it for us.
    pub fn handle_terminate_failed(&mut self, id: &SessionId, refused: bool, now: Instant) {
        if let Some(termination) = self.find(id).and_then(|live| live.termination.as_mut()) {
            termination.calling = false;
            termination.refused |= refused;
            termination.call_at = now + termination.backoff.next_delay();
        }
    }

    /// AWS has said that a session is over. Gives its record, with `reason` when nobody had ended it here.
    pub fn handle_over(
        &mut self,
        id: &SessionId,
        reason: EndReason,
        at: Timestamp,
    ) -> Option<SessionRecord> {
        let index = self
            .live
            .iter()
            .position(|live| live.record.session_id == *id)?;
        let Live {
            mut record,
            inherited: _,
            termination,
        } = self.live.remove(index);
        let (reason, message) =
            termination.map_or((reason, String::new()), |t| (t.reason, t.message));
        record.end = Some(SessionEnd {
            at,
            reason,
            message,
        });
        self.ended.insert(0, record.clone());
        self.ended.truncate(ENDED_MAX);
        Some(record)
    }

    /// Sessions that AWS has not yet said to be over.
    #[must_use]
    pub fn live_count(&self) -> usize {
        self.live.len()
    }

    /// Those of them that stand for what this run leaves behind in AWS. What an earlier run has recorded and AWS refuses to
    /// end for us does not: a relay that recorded what is not ours would keep the listener down for as long as that lasts.
    #[must_use]
    pub fn open_count(&self) -> usize {
        self.live.iter().filter(|live| !live.is_left_over()).count()
    }

    /// Those that AWS has not refused to end for us either: what a run waits for that leaves the record to another.
    #[must_use]
    pub fn unrefused_count(&self) -> usize {
        self.live.iter().filter(|live| !live.is_refused()).count()
    }

    /// When [`Self::poll_terminate`] has something to say.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        if !self.on_record {
            return None;
        }
        let waiting = self
            .live
            .iter()
            .filter_map(|live| live.termination.as_ref());
        waiting
            .filter(|termination| !termination.calling)
            .map(|t| t.call_at)
            .min()
    }

    /// Live sessions, those last that AWS refuses to end; then those that ended, newest first.
    #[must_use]
    pub fn records(&self) -> Vec<SessionRecord> {
        let (refused, open): (Vec<_>, Vec<_>) =
            self.live.iter().partition(|live| live.is_left_over());
        let refused = refused.into_iter().take(REFUSED_MAX);
        let live = open.into_iter().chain(refused).map(|live| &live.record);
        live.chain(&self.ended).cloned().collect()
    }

    fn find(&mut self, id: &SessionId) -> Option<&mut Live> {
        self.live
            .iter_mut()
            .find(|live| live.record.session_id == *id)
    }
}
