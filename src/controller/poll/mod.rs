//! What AWS said last: one DescribeSessions poll for all sessions of an identity.
//!
//! A snapshot is whole or it is not published: all Active pages, then the ends that somebody looks for, by id in
//! History. A reader who misses a session in Active concludes nothing from it, and asks for its end instead.

mod schedule;
mod take;
pub mod task;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use jiff::Timestamp;
use tokio::time::Instant;

use crate::broker::{BrokerError, DescribedSession, Identity, SessionId};

/// What AWS said of one identity's sessions.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// How many polls were complete; 0 before the first.
    pub round: u64,
    /// When the last complete poll began.
    pub taken_at: Option<Timestamp>,
    /// The same, on the clock of this process.
    pub begun: Option<Instant>,
    /// All Active sessions.
    pub active: HashMap<SessionId, DescribedSession>,
    /// Sessions that somebody looks for and History has.
    pub ended: HashMap<SessionId, DescribedSession>,
    /// Whether this poll or one before it has shown a marker: AWS shows reasons, and as they were given.
    pub shows_markers: bool,
    /// What went wrong in the last poll.
    pub error: Option<BrokerError>,
}

impl Snapshot {
    /// The session, with its end if History has it.
    #[must_use]
    pub fn session(&self, id: &SessionId) -> Option<&DescribedSession> {
        self.ended.get(id).or_else(|| self.active.get(id))
    }

    /// Whether History says that the session is over.
    #[must_use]
    pub fn says_over(&self, id: &SessionId) -> bool {
        self.ended.get(id).is_some_and(is_over)
    }

    /// Ids of which this says something else than `previous`.
    #[must_use]
    pub fn changed_since(&self, previous: &Self) -> HashSet<SessionId> {
        let ids = [&self.active, &self.ended, &previous.active, &previous.ended];
        let ids = ids.into_iter().flat_map(HashMap::keys);
        let differs = |id: &&SessionId| {
            self.active.get(id) != previous.active.get(id)
                || self.ended.get(id) != previous.ended.get(id)
        };
        ids.filter(differs).cloned().collect()
    }
}

/// Whether AWS calls the session over, or about to be.
#[must_use]
pub fn is_over(session: &DescribedSession) -> bool {
    session.status.as_deref().is_some_and(is_over_word)
}

/// Whether a session of this status is over, or about to be.
#[must_use]
pub fn is_over_word(status: &str) -> bool {
    matches!(status, "Terminated" | "Terminating" | "Failed")
}

/// Who looks for the ends of which sessions: an `SsmSession` for its status, a deleted listener for its finalizer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Want {
    /// Namespace of the `SsmSession` that is reconciled when something is found; so is the listener that records it.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The AWS sessions.
    pub sessions: HashSet<(Identity, SessionId)>,
}

/// The snapshots of all identities, and what is looked for.
#[derive(Debug, Default)]
pub struct Polls {
    snapshots: RwLock<HashMap<Identity, Arc<Snapshot>>>,
    wants: Mutex<HashMap<String, Want>>,
}

impl Polls {
    /// What AWS said last of this identity's sessions.
    #[must_use]
    pub fn snapshot(&self, identity: &Identity) -> Arc<Snapshot> {
        let snapshots = self
            .snapshots
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        snapshots.get(identity).cloned().unwrap_or_default()
    }

    /// Sets whose ends the object with this UID looks for, in place of what it looked for before.
    pub fn want(&self, uid: &str, want: Option<Want>) {
        let mut wants = self.wants.lock().unwrap_or_else(PoisonError::into_inner);
        match want.filter(|want| !want.sessions.is_empty()) {
            Some(want) => wants.insert(uid.to_owned(), want),
            None => wants.remove(uid),
        };
    }

    /// Forgets the wants of objects that are not there.
    pub fn keep_wants_of(&self, is_there: impl Fn(&str) -> bool) {
        let mut wants = self.wants.lock().unwrap_or_else(PoisonError::into_inner);
        wants.retain(|uid, _| is_there(uid));
    }

    /// The sessions of `identity` whose ends somebody looks for: those of each object by themselves, all in the order of the
    /// last time.
    #[must_use]
    pub fn wanted(&self, identity: &Identity) -> Vec<Vec<SessionId>> {
        let wants = self.wants.lock().unwrap_or_else(PoisonError::into_inner);
        let by_uid: BTreeMap<&String, &Want> = wants.iter().collect();
        let of_each = by_uid.values().map(|want| {
            let all = want.sessions.iter().filter(|(of, _)| of == identity);
            let mut mine: Vec<_> = all.map(|(_, id)| id.clone()).collect();
            mine.sort();
            mine
        });
        of_each.filter(|mine| !mine.is_empty()).collect()
    }

    /// Identities of sessions whose ends somebody looks for.
    fn wanted_identities(&self) -> HashSet<Identity> {
        let wants = self.wants.lock().unwrap_or_else(PoisonError::into_inner);
        let all = wants.values().flat_map(|want| &want.sessions);
        all.map(|(identity, _)| identity.clone()).collect()
    }

    /// Namespace and name of the `SsmSession`s that look for one of these.
    fn interested(&self, changed: &HashSet<SessionId>) -> Vec<(String, String)> {
        let wants = self.wants.lock().unwrap_or_else(PoisonError::into_inner);
        let hit = |want: &&Want| want.sessions.iter().any(|(_, id)| changed.contains(id));
        wants
            .values()
            .filter(hit)
            .map(|w| (w.namespace.clone(), w.name.clone()))
            .collect()
    }

    fn publish(&self, identity: Identity, snapshot: Snapshot) {
        let mut snapshots = self
            .snapshots
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        snapshots.insert(identity, Arc::new(snapshot));
    }

    /// When each Region that is polled was last known completely, in seconds since 1970. Of several identities the one
    /// that was not answered for longest is what somebody must know of: it is the oldest of what was taken there, and 0
    /// while an identity that was polled there has never been answered completely.
    #[must_use]
    pub fn known_since(&self) -> BTreeMap<String, i64> {
        let snapshots = self
            .snapshots
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        let mut known: BTreeMap<String, i64> = BTreeMap::new();
        for (identity, snapshot) in snapshots.iter() {
            let taken = snapshot.taken_at.map_or(0, Timestamp::as_second);
            let oldest = known.entry(identity.region.clone()).or_insert(taken);
            *oldest = taken.min(*oldest);
        }
        known
    }

    fn forget(&self, identity: &Identity) {
        self.snapshots
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(identity);
    }
}

#[cfg(test)]
mod tests;
