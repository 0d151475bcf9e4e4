//! `status.sessions` and `status.history`: what listeners recorded, overlaid with what AWS says, word for word.
//!
//! A session that its listener calls live is in `sessions`. One that ended stays there until History shows its end,
//! then moves to `history` with its duration, once and for ever. What AWS never shows is given up after a while.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use crate::broker::{DescribedSession, Identity, SessionId};
use crate::controller::poll::{Snapshot, is_over, is_over_word};
use crate::controller::trust::identity_of_record;
use crate::crd::listener::{EndReason, ListenerSession};
use crate::crd::session::{AwsSession, OutputUrl};
use crate::crd::text::cut;
use crate::crd::{SsmListener, SsmSessionStatus, limit};

/// Live and ending sessions that a status shows.
const SESSIONS_MAX: usize = limit::SESSIONS_MAX as usize;

/// Ended sessions that a status shows.
const HISTORY_MAX: usize = limit::HISTORY_MAX as usize;

/// What the mirror is made of.
pub struct Sources<'a> {
    /// The status that is there.
    pub previous: &'a SsmSessionStatus,
    /// The session's listeners.
    pub listeners: &'a [Arc<SsmListener>],
    /// What AWS said, for each identity of the listeners and the class.
    pub snapshots: &'a BTreeMap<Identity, Arc<Snapshot>>,
    /// Since when each end is looked for.
    pub ending: &'a HashMap<String, Instant>,
    /// With what the sessions that were shown were started.
    pub started_with: &'a HashMap<String, Identity>,
    /// Sessions whose end was reported already.
    pub finished: &'a HashSet<String>,
    /// How long an end is looked for.
    pub history_timeout: Duration,
    /// Now.
    pub now: Instant,
}

/// What the status shows, and what is to be remembered and looked for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Mirror {
    /// Live and ending sessions, by port and then by id.
    pub sessions: Vec<AwsSession>,
    /// Ended sessions, newest first.
    pub history: Vec<AwsSession>,
    /// Sessions whose end is reported now, also those for which the history has no room.
    pub ended: Vec<AwsSession>,
    /// Sessions whose ends are looked for, and since when.
    pub ending: HashMap<String, Instant>,
    /// With what the sessions that are shown were started, as far as that is known.
    pub started_with: HashMap<String, Identity>,
    /// Sessions whose end was reported, as far as a listener still records them.
    pub finished: HashSet<String>,
    /// What the next poll shall look up in History.
    pub wanted: HashSet<(Identity, SessionId)>,
}

impl Mirror {
    fn show(&mut self, session: AwsSession, started_with: Option<Identity>) {
        let id = session.session_id.clone();
        self.started_with
            .extend(started_with.map(|identity| (id, identity)));
        self.sessions.push(session);
    }

    /// Reports the end of a session, once.
    fn finish(&mut self, mut session: AwsSession) {
        let (start, end) = (&session.start_date, &session.end_date);
        let dates = time(start.as_deref()).zip(time(end.as_deref()));
        session.duration = dates.map(|(start, end)| duration(start, end));
        if end.is_none() && !session.status.as_deref().is_some_and(is_over_word) {
            // The last that AWS said of it was before its end, and nothing will correct it.
            session.status = None;
        }
        self.finished.insert(session.session_id.clone());
        self.ended.push(session.clone());
        self.history.insert(0, session);
    }

    /// Sessions that have ended and whose end is still looked for: it is not reported yet.
    #[must_use]
    pub fn untold(&self) -> Vec<AwsSession> {
        let sessions = self.sessions.iter();
        let ended = sessions.filter(|session| session.end_reason.is_some());
        ended.cloned().collect()
    }
}

struct Record<'a> {
    listener: &'a SsmListener,
    session: &'a ListenerSession,
}

impl Record<'_> {
    fn identity(&self) -> Option<Identity> {
        identity_of_record(&self.listener.spec, self.session)
    }
}

/// Makes the mirror; a function of its sources.
#[must_use]
pub fn mirror(sources: &Sources<'_>) -> Mirror {
    let mut records: BTreeMap<&str, Record<'_>> = BTreeMap::new();
    for listener in sources.listeners {
        for session in listener.status.iter().flat_map(|status| &status.sessions) {
            records.insert(&session.session_id, Record { listener, session });
        }
    }
    let reported: HashSet<&str> = sources
        .previous
        .history
        .iter()
        .map(|session| session.session_id.as_str())
        .collect();
    let shown: BTreeMap<&str, &AwsSession> = sources
        .previous
        .sessions
        .iter()
        .map(|s| (s.session_id.as_str(), s))
        .collect();
    let ids: Vec<&str> = records.keys().chain(shown.keys()).copied().collect();
    let mut mirror = Mirror {
        history: sources.previous.history.clone(),
        ..Mirror::default()
    };
    let floor = floor(&sources.previous.history, &records);
    let mut done: HashSet<&str> = HashSet::new();
    for id in ids {
        if !done.insert(id) {
            continue;
        }
        if reported.contains(id) || sources.finished.contains(id) {
            if records.contains_key(id) {
                mirror.finished.insert(id.to_owned());
            }
            continue;
        }
        let ended_at = records
            .get(id)
            .and_then(|record| time(record.session.ended_at.as_deref()));
        let below = ended_at.zip(floor).is_some_and(|(at, floor)| at <= floor);
        if below && !shown.contains_key(id) {
            mirror.finished.insert(id.to_owned());
            continue;
        }
        add(
            sources,
            &mut mirror,
            id,
            records.get(id),
            shown.get(id).copied(),
        );
    }
    mirror
        .sessions
        .sort_by(|a, b| (&a.port, &a.session_id).cmp(&(&b.port, &b.session_id)));
    mirror.sessions.truncate(SESSIONS_MAX);
    // A session without an end that AWS gave comes last, and is the first to fall off.
    mirror
        .history
        .sort_by_key(|session| std::cmp::Reverse(time(session.end_date.as_deref())));
    mirror.history.truncate(HISTORY_MAX);
    mirror
}

/// When the oldest session of a full history ended: what is not shown and ended before has fallen off, and listeners
/// record more ends than a history keeps. Without it each new process would report them again.
fn floor(history: &[AwsSession], records: &BTreeMap<&str, Record<'_>>) -> Option<Timestamp> {
    if history.len() < HISTORY_MAX {
        return None;
    }
    let ends = history.iter().map(|session| {
        // By the relay's clock where it can be had: that is what the others are compared by.
        let record = records.get(session.session_id.as_str());
        let recorded = record.and_then(|record| time(record.session.ended_at.as_deref()));
        recorded.or_else(|| time(session.end_date.as_deref()))
    });
    ends.collect::<Option<Vec<Timestamp>>>()?.into_iter().min()
}

fn add(
    sources: &Sources<'_>,
    mirror: &mut Mirror,
    id: &str,
    record: Option<&Record<'_>>,
    shown: Option<&AwsSession>,
) {
    let parsed = SessionId::parse(id);
    let found = parsed.as_ref().and_then(|id| find(sources, id, record));
    let mut session = shown.cloned().unwrap_or_default();
    id.clone_into(&mut session.session_id);
    if let Some(record) = record {
        session.port = Some(record.listener.spec.port.clone());
        session.replica = Some(record.listener.spec.replica);
        session.relay = Some(record.session.relay.clone());
    }
    if let Some((_, described)) = &found {
        overlay(&mut session, described);
    }
    let started_with = record.and_then(Record::identity);
    let started_with = started_with.or_else(|| sources.started_with.get(id).cloned());
    let live = record.is_some_and(|record| record.session.ended_at.is_none());
    if live {
        let snapshot = started_with.clone().and_then(|identity| {
            sources
                .snapshots
                .get(&identity)
                .map(|snapshot| (identity, snapshot))
        });
        if let (Some((identity, snapshot)), Some(id), Some(record)) = (snapshot, parsed, record)
            && is_doubtful(snapshot, &id, record.session)
        {
            mirror.wanted.insert((identity, id));
        }
        mirror.show(session, started_with);
        return;
    }
    match record {
        Some(record) => {
            session.end_reason = record.session.end_reason;
            session.end_message = record
                .session
                .end_message
                .as_deref()
                .map(|m| cut(m).into_owned());
        }
        // A listener goes only when it is deleted, maybe before its last words were read.
        None => {
            session.end_reason.get_or_insert(EndReason::Deleted);
        }
    }
    let since = sources.ending.get(id).copied().unwrap_or(sources.now);
    let given_up = sources.now.duration_since(since) >= sources.history_timeout;
    // When nobody knows for sure with which identity it was started, all that are known are asked.
    let identities: Vec<Identity> = match &started_with {
        Some(identity) => vec![identity.clone()],
        None => sources.snapshots.keys().cloned().collect(),
    };
    let searchable = parsed.is_some() && !identities.is_empty();
    if session.end_date.is_some() || given_up || !searchable {
        mirror.finish(session);
        return;
    }
    mirror.ending.insert(id.to_owned(), since);
    if let Some(id) = parsed {
        mirror.wanted.extend(
            identities
                .into_iter()
                .map(|identity| (identity, id.clone())),
        );
    }
    mirror.show(session, started_with);
}

fn find<'a>(
    sources: &'a Sources<'_>,
    id: &SessionId,
    record: Option<&Record<'_>>,
) -> Option<(&'a Identity, &'a DescribedSession)> {
    let mine = record.and_then(Record::identity);
    let mut snapshots = sources.snapshots.iter();
    snapshots.find_map(|(identity, snapshot)| {
        let asked = mine.as_ref().is_none_or(|mine| mine == identity);
        snapshot
            .session(id)
            .filter(|_| asked)
            .map(|session| (identity, session))
    })
}

/// A live session that a poll begun after its start does not show, or calls over: History is asked.
fn is_doubtful(snapshot: &Snapshot, id: &SessionId, session: &ListenerSession) -> bool {
    let polled_since = snapshot.taken_at > time(Some(&session.started_at));
    snapshot.active.get(id).map_or(polled_since, is_over)
}

/// Writes what AWS says over what was known; what it does not say stays, since an ended session loses fields.
fn overlay(session: &mut AwsSession, described: &DescribedSession) {
    let DescribedSession {
        session_id: _,
        status,
        target,
        document_name,
        owner,
        reason,
        details,
        access_type,
        start_date,
        end_date,
        max_session_duration,
        s3_output_url,
        cloud_watch_output_url,
    } = described;
    let write = |field: &mut Option<String>, said: &Option<String>| {
        if let Some(said) = said {
            *field = Some(cut(said).into_owned());
        }
    };
    write(&mut session.status, status);
    write(&mut session.target, target);
    write(&mut session.document_name, document_name);
    write(&mut session.owner, owner);
    write(&mut session.reason, reason);
    write(&mut session.details, details);
    write(&mut session.access_type, access_type);
    write(
        &mut session.start_date,
        &start_date.map(|date| date.to_string()),
    );
    write(
        &mut session.end_date,
        &end_date.map(|date| date.to_string()),
    );
    write(&mut session.max_session_duration, max_session_duration);
    if s3_output_url.is_some() || cloud_watch_output_url.is_some() {
        let url: &mut OutputUrl = session.output_url.get_or_insert_default();
        write(&mut url.s3, s3_output_url);
        write(&mut url.cloud_watch, cloud_watch_output_url);
    }
}

fn time(text: Option<&str>) -> Option<Timestamp> {
    text?.parse().ok()
}

/// `1h2m3s`, without the units in front that are zero; a session that AWS lets end before it began lasted `0s`.
fn duration(start: Timestamp, end: Timestamp) -> String {
    let seconds = (end.as_second() - start.as_second()).max(0);
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, _) => format!("{minutes}m{seconds}s"),
        (_, _) => format!("{hours}h{minutes}m{seconds}s"),
    }
}
