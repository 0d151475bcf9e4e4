//! What becomes of a listener: pure, without a client and a clock.

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use kube::ResourceExt as _;
use tokio::time::Instant;

use super::observe::{Observed, SessionFound};
use crate::broker::{DescribedSession, Identity, Marker, SessionId};
use crate::controller::drain::Drain;
use crate::controller::poll::Snapshot;
use crate::controller::trust::identities_to_ask;
use crate::crd::listener::{
    EndReason, ListenerSession, ListenerState, LostSession, SsmListenerStatus,
};
use crate::crd::{LISTENER_FINALIZER, SsmListener, SsmListenerSpec};

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// A living relay's time to terminate the sessions of a deleted listener.
    pub terminate_after: Duration,
    /// How long the sweeper needs for a session that nobody recorded.
    pub sweep_after: Duration,
    /// Between two looks for a relay.
    pub unbound_interval: Duration,
}

/// Why nobody asks for a listener any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Orphaned {
    /// Its `SsmSession` is gone.
    SessionGone,
    /// Its `SsmSession` is held by another installation.
    SessionAnothers,
    /// The namespace of its `SsmSession` is not watched: nobody would notice that it is deleted.
    NotWatched,
    /// The installation is asked to drain.
    Draining,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Delete the listener, and so end its AWS sessions.
    Delete(Orphaned),
    /// Write the controller's fields of the spec.
    SetSpec {
        /// The relay that shall serve it.
        relay: Option<String>,
        /// AWS sessions that are over, as AWS says.
        lost_sessions: Vec<LostSession>,
    },
    /// Terminate an AWS session, since no relay does.
    Terminate {
        /// With what it was started.
        identity: Identity,
        /// Its id.
        session: SessionId,
    },
    /// Say that this AWS session is on record and not the listener's: it is nobody's here to end.
    LeaveAlone(SessionId),
    /// Nothing of it is left in AWS.
    RemoveFinalizer,
}

/// Steps in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// What to do.
    pub steps: Vec<Step>,
    /// When to look again though nothing happens; at the next resync if absent.
    pub requeue_after: Option<Duration>,
}

impl Plan {
    /// The relay to which this plan binds the listener.
    #[must_use]
    pub fn binds_to(&self) -> Option<&str> {
        self.steps.iter().find_map(|step| match step {
            Step::SetSpec { relay, .. } => relay.as_deref(),
            Step::Delete(_)
            | Step::Terminate { .. }
            | Step::LeaveAlone(_)
            | Step::RemoveFinalizer => None,
        })
    }
}

/// Decides; the same observation at the same time gives the same plan.
#[must_use]
pub fn decide(observed: &Observed, settings: &Settings, now: Instant) -> Plan {
    if observed.listener.metadata.deletion_timestamp.is_some() {
        return decide_deletion(observed, settings, now);
    }
    let orphaned = match (observed.is_watched, observed.drain, observed.session) {
        (false, _, _) => Some(Orphaned::NotWatched),
        (true, Drain::Asked, _) => Some(Orphaned::Draining),
        (true, Drain::No | Drain::Unconfirmed, SessionFound::Gone) => Some(Orphaned::SessionGone),
        (true, Drain::No | Drain::Unconfirmed, SessionFound::Anothers) => {
            Some(Orphaned::SessionAnothers)
        }
        (true, Drain::No | Drain::Unconfirmed, SessionFound::There) => None,
    };
    if let Some(why) = orphaned {
        return Plan {
            steps: vec![Step::Delete(why)],
            requeue_after: None,
        };
    }
    let spec = &observed.listener.spec;
    let relay = choose_relay(observed);
    let lost_sessions = lost_sessions(observed);
    if relay == spec.relay && lost_sessions == spec.lost_sessions {
        let is_gone = |relay: &String| observed.relays.is_gone(relay);
        let is_unbound = relay.as_ref().is_none_or(is_gone);
        return Plan {
            steps: Vec::new(),
            requeue_after: is_unbound.then_some(settings.unbound_interval),
        };
    }
    Plan {
        steps: vec![Step::SetSpec {
            relay,
            lost_sessions,
        }],
        requeue_after: None,
    }
}

/// The relay it has, unless that may be left; then the living one with fewest listeners among those that have room, away
/// from its siblings if possible. How much room there is takes no part: it is the relays' own word, and a large one would
/// draw all listeners to whoever says it.
fn choose_relay(observed: &Observed) -> Option<String> {
    let current = observed.listener.spec.relay.as_ref();
    if observed.drain == Drain::Unconfirmed {
        // Another relay would begin another AWS session, which a drain that is under way would have to end.
        return current.cloned();
    }
    if let Some(current) = current
        && !observed.relays.may_move_from(current)
    {
        return Some(current.clone());
    }
    let load_with_room = |name: &String| {
        let relay = observed.relays.relays.get(name)?;
        let load = observed.load.get(name).copied().unwrap_or(0);
        (load < relay.capacity).then_some(load)
    };
    let names = observed
        .relays
        .relays
        .keys()
        .filter(|name| observed.relays.is_alive(name));
    // The first by name wins a tie: of equals, min_by_key takes the first.
    let best = names
        .filter_map(|name| Some((name, load_with_room(name)?)))
        .min_by_key(|(name, load)| (observed.siblings.contains(*name), *load));
    best.map(|(name, _)| name.clone())
        .or_else(|| current.cloned())
}

/// Live sessions of which History says that they are over, and those that were told before and still count as live.
fn lost_sessions(observed: &Observed) -> Vec<LostSession> {
    let told: BTreeSet<&str> = observed
        .listener
        .spec
        .lost_sessions
        .iter()
        .map(|lost| lost.session_id.as_str())
        .collect();
    let lost = live(observed.listener.status.as_ref())
        .filter(|session| told.contains(session.session_id.as_str()) || is_over(observed, session));
    let lost = lost.map(|session| {
        let before = observed.listener.spec.lost_sessions.iter();
        let before = before.filter(|lost| lost.session_id == session.session_id);
        LostSession {
            session_id: session.session_id.clone(),
            reason: before
                .map(|lost| lost.reason)
                .next()
                .unwrap_or(EndReason::TerminatedExternally),
        }
    });
    let mut lost: Vec<LostSession> = lost.collect();
    lost.sort_by(|a, b| a.session_id.cmp(&b.session_id));
    lost.dedup();
    lost
}

fn live(status: Option<&SsmListenerStatus>) -> impl Iterator<Item = &ListenerSession> {
    let sessions = status.into_iter().flat_map(|status| &status.sessions);
    sessions.filter(|session| session.ended_at.is_none())
}

/// The sessions whose ends the listener itself has to know, since it is being deleted: its `SsmSession` may be gone, and
/// what AWS has ended need not be terminated. All that are recorded as live, also those of which the end is known, for
/// what nobody looks for is forgotten.
#[must_use]
pub fn wanted(listener: &SsmListener) -> HashSet<(Identity, SessionId)> {
    if listener.metadata.deletion_timestamp.is_none() {
        return HashSet::new();
    }
    live(listener.status.as_ref())
        .flat_map(|session| calls(&listener.spec, session))
        .collect()
}

/// With what AWS is asked about a recorded session; with nothing if its id can't be an id.
fn calls(spec: &SsmListenerSpec, session: &ListenerSession) -> Vec<(Identity, SessionId)> {
    let Some(id) = SessionId::parse(&session.session_id) else {
        return Vec::new();
    };
    let identities = identities_to_ask(spec, session).into_iter();
    identities.map(|identity| (identity, id.clone())).collect()
}

fn is_over(observed: &Observed, session: &ListenerSession) -> bool {
    let mut calls = calls(&observed.listener.spec, session).into_iter();
    calls.any(|(identity, id)| {
        let snapshot = observed.snapshots.get(&identity);
        snapshot.is_some_and(|snapshot| snapshot.says_over(&id))
    })
}

/// Whether a complete poll that began after `since` does not show the session as Active. What AWS does not show it also
/// refuses to end, and a relay may have recorded what never was.
fn is_nowhere(observed: &Observed, (identity, id): &(Identity, SessionId), since: Instant) -> bool {
    let snapshot = polled_since(observed, identity, since);
    snapshot.is_some_and(|snapshot| !snapshot.active.contains_key(id))
}

/// Whether such a poll shows the session as Active, and not as one that was started for this listener: a relay that was
/// taken over may record whatever runs in the account, and AWS may refuse for ever to end it for us.
///
/// Every session of ours is started with the marker. That AWS shows none proves nothing by itself, for it need not show any
/// reason. So it only counts from an AWS that has shown this identity markers of other sessions.
fn is_anothers(
    observed: &Observed,
    (identity, id): &(Identity, SessionId),
    since: Instant,
) -> bool {
    let Some(snapshot) = polled_since(observed, identity, since) else {
        return false;
    };
    let is_ours = |session: &DescribedSession| {
        let reason = session.reason.as_deref().unwrap_or_default();
        Marker::parse(reason).as_ref() == Some(&observed.marker)
    };
    let shown = snapshot.active.get(id);
    snapshot.shows_markers && shown.is_some_and(|session| !is_ours(session))
}

/// The last complete poll of an identity, if it began after `since`.
fn polled_since<'a>(
    observed: &'a Observed,
    identity: &Identity,
    since: Instant,
) -> Option<&'a Snapshot> {
    let snapshot = observed.snapshots.get(identity)?;
    (snapshot.begun? > since).then_some(snapshot.as_ref())
}

/// The finalizer goes when the relay confirms that all is over, or when the controller has seen to it itself.
///
/// A listener without a status never led to a call: the relay writes `Starting` first, guarded by the resourceVersion
/// that the deletion has changed, and not once it has read the deletion. A relay that died while `Starting` may leave a
/// session that it never recorded: that one has our marker, and the sweeper ends it. So long the listener stays, since it
/// says with which identity AWS is to be asked, also to a controller that was restarted meanwhile. What AWS does not end is
/// tried again and again, unless it is found nowhere, or to be another's, once the sweeper would have found it.
///
/// Time is measured from when this process saw the deletion first: the API server's clock and ours may be minutes apart.
fn decide_deletion(observed: &Observed, settings: &Settings, now: Instant) -> Plan {
    let listener = &observed.listener;
    if !listener
        .finalizers()
        .iter()
        .any(|finalizer| finalizer == LISTENER_FINALIZER)
    {
        return Plan::default();
    }
    let remove = Plan {
        steps: vec![Step::RemoveFinalizer],
        requeue_after: None,
    };
    let Some(status) = &listener.status else {
        return remove;
    };
    let relay = listener.spec.relay.as_deref();
    let is_current =
        relay == Some(&status.relay) && observed.relays.serves(&status.relay, &status.incarnation);
    if is_current && status.state == ListenerState::Ended && live(Some(status)).next().is_none() {
        return remove;
    }
    let relay_acts = relay.is_some_and(|relay| observed.relays.acts(relay));
    let since = observed.deleting_since.unwrap_or(now);
    let waited = now.duration_since(since);
    let wait = |patience: Duration| Plan {
        steps: Vec::new(),
        requeue_after: Some(patience.saturating_sub(waited)),
    };
    if relay_acts && waited < settings.terminate_after {
        return wait(settings.terminate_after);
    }
    let open = live(Some(status)).filter(|session| !is_over(observed, session));
    // An id that can't be an id can't be terminated either, and nothing is waited for on its account.
    let open = open.flat_map(|session| calls(&listener.spec, session));
    let swept = since + settings.sweep_after;
    let open = open
        .filter(|call| !observed.terminated.contains(call) && !is_nowhere(observed, call, swept));
    let (anothers, open): (Vec<_>, Vec<_>) =
        open.partition(|call| is_anothers(observed, call, swept));
    let steps: Vec<Step> = open
        .into_iter()
        .map(|(identity, session)| Step::Terminate { identity, session })
        .collect();
    if !steps.is_empty() {
        return Plan {
            steps,
            requeue_after: None,
        };
    }
    // A state that is not known may be one in which a session is being started.
    let may_start = matches!(
        status.state,
        ListenerState::Starting | ListenerState::Unknown
    );
    if may_start && waited < settings.sweep_after {
        return wait(settings.sweep_after);
    }
    let anothers: BTreeSet<SessionId> = anothers.into_iter().map(|(_, session)| session).collect();
    let left = anothers.into_iter().map(Step::LeaveAlone);
    Plan {
        steps: left.chain(remove.steps).collect(),
        requeue_after: None,
    }
}
