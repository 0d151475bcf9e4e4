//! Ends AWS sessions that carry our marker and that nobody has recorded: a start whose answer was lost, a relay that
//! died before it could write, a listener that is gone.
//!
//! A session that was just started is not yet recorded either. That race is covered by time: a relay records a
//! session within 10 s of StartSession's answer or terminates it, StartSession has a deadline of its own, and the
//! grace is longer than both together; a session must have been seen unrecorded in two polls and for longer than the
//! grace. Even then the listeners are read from the API server itself just before, and without its answer nothing is
//! ended.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};
use tokio::time::{Instant, timeout, timeout_at};
use tracing::{Instrument as _, error_span, info, warn};

use crate::backoff::delay;
use crate::broker::{DescribedSession, Identity, Marker, SessionId};
use crate::controller::cached::{Listed, listed};
use crate::controller::context::Context;
use crate::controller::events::{self, SessionEvent};
use crate::controller::poll::is_over;
use crate::controller::trust;
use crate::crd::SsmListener;
use crate::reading::Guarded;

/// How long the sweep of one identity may take: its next poll waits for it, and what is left is found again by that.
const SWEEP_MAX: Duration = Duration::from_mins(1);

/// Sessions that are ended at the same time: in a sweep of a minute some that are never answered leave time for others.
const SWEPT_AT_ONCE: usize = 8;

/// The longest pause between two attempts to end a suspect, in graces: what AWS refuses to end, or whose listener can't be
/// read, costs a call or a list of all listeners each time. With the defaults that is 8 minutes.
const PAUSE_GRACES: u32 = 8;

#[derive(Clone, Copy, Debug)]
struct Suspicion {
    since: Instant,
    polls: u32,
    failures: u32,
    /// Before this it is not tried again.
    next: Instant,
}

/// What a sweep came to. What it had no time for is in neither.
#[derive(Debug, Default)]
pub struct Swept {
    /// AWS has taken the terminations of these.
    pub terminated: Vec<SessionId>,
    /// AWS has not taken those of these, or nobody can tell whether they are recorded.
    pub left: Vec<SessionId>,
}

/// What is suspected: pure, with `now` as an argument.
#[derive(Debug)]
pub struct Sweeper {
    namespace_uid: String,
    grace: Duration,
    suspicions: HashMap<Identity, HashMap<SessionId, Suspicion>>,
}

/// A session that is to be ended, if the API server does not know better.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suspect {
    /// The session.
    pub session: SessionId,
    /// Who it says it was started for.
    pub marker: Marker,
}

/// The sessions that listeners record as live, by the listener's half of the marker. One whose record names an identity
/// that is not the listener's is nobody's: who would end it by its record would ask AWS as somebody else.
fn recorded(
    namespace_uid: &str,
    listeners: &[Arc<SsmListener>],
) -> HashMap<Marker, HashSet<String>> {
    let of = |listener: &Arc<SsmListener>| {
        let marker = Marker::new(namespace_uid, &listener.uid().unwrap_or_default());
        let sessions = listener.status.iter().flat_map(|status| &status.sessions);
        let live = sessions.filter(|session| {
            session.ended_at.is_none()
                && trust::identity_of_record(&listener.spec, session).is_some()
        });
        (
            marker,
            live.map(|session| session.session_id.clone()).collect(),
        )
    };
    listeners.iter().map(of).collect()
}

impl Sweeper {
    /// For the installation whose operator lives in the namespace with this UID.
    #[must_use]
    pub fn new(namespace_uid: &str, grace: Duration) -> Self {
        Self {
            namespace_uid: namespace_uid.to_owned(),
            grace,
            suspicions: HashMap::new(),
        }
    }

    /// An identity is no longer polled.
    pub fn forget(&mut self, identity: &Identity) {
        self.suspicions.remove(identity);
    }

    /// Whether a session of this identity is suspected.
    #[must_use]
    pub fn suspects(&self, identity: &Identity) -> bool {
        let suspicions = self.suspicions.get(identity);
        suspicions.is_some_and(|suspicions| !suspicions.is_empty())
    }

    /// A sweep has ended. AWS may show a session as Active for a while after it has taken its termination, so that one is
    /// suspected afresh; what was left is tried again ever later.
    pub fn handle_swept(&mut self, identity: &Identity, swept: &Swept, now: Instant) {
        let Some(suspicions) = self.suspicions.get_mut(identity) else {
            return;
        };
        for session in &swept.terminated {
            suspicions.remove(session);
        }
        for session in &swept.left {
            if let Some(suspicion) = suspicions.get_mut(session) {
                suspicion.failures = suspicion.failures.saturating_add(1);
                let longest = self.grace * PAUSE_GRACES;
                suspicion.next = now + delay(self.grace, longest, suspicion.failures);
            }
        }
    }

    /// A complete poll. Gives the sessions that were seen unrecorded in two polls and for longer than the grace, but for
    /// those of which the next attempt is not due. What AWS itself calls over, or about to be, needs nobody to end it.
    #[must_use]
    pub fn handle_poll(
        &mut self,
        identity: &Identity,
        active: &HashMap<SessionId, DescribedSession>,
        listeners: &[Arc<SsmListener>],
        now: Instant,
    ) -> Vec<Suspect> {
        let ours = Marker::installation_of(&self.namespace_uid);
        let recorded = recorded(&self.namespace_uid, listeners);
        let before = self.suspicions.remove(identity).unwrap_or_default();
        let mut suspicions = HashMap::new();
        let mut suspects = Vec::new();
        for (id, session) in active {
            let Some(marker) = session.reason.as_deref().and_then(Marker::parse) else {
                continue;
            };
            let is_recorded = || {
                recorded
                    .get(&marker)
                    .is_some_and(|sessions| sessions.contains(id.as_str()))
            };
            if marker.installation != ours || is_over(session) || is_recorded() {
                continue;
            }
            let first = Suspicion {
                since: now,
                polls: 0,
                failures: 0,
                next: now,
            };
            let mut suspicion = before.get(id).copied().unwrap_or(first);
            suspicion.polls = suspicion.polls.saturating_add(1);
            let lasts = suspicion.polls >= 2 && now.duration_since(suspicion.since) > self.grace;
            if lasts && now >= suspicion.next {
                suspects.push(Suspect {
                    session: id.clone(),
                    marker,
                });
            }
            suspicions.insert(id.clone(), suspicion);
        }
        self.suspicions.insert(identity.clone(), suspicions);
        suspects.sort_by(|a, b| a.session.cmp(&b.session));
        suspects
    }
}

/// Asks the API server for the listeners as they are now, and ends those suspects that they don't record either. What is not
/// ended within [`SWEEP_MAX`] stays suspected.
pub async fn sweep(context: &Context, identity: &Identity, suspects: Vec<Suspect>) -> Swept {
    let options = &context.options;
    let deadline = Instant::now() + SWEEP_MAX;
    let api: Api<Guarded<SsmListener>> =
        Api::namespaced(context.client.clone(), &options.namespace);
    // One list and not a GET for each: a listener that is gone can only be looked for by its UID.
    let listeners = match timeout(options.api_timeout, api.list(&ListParams::default())).await {
        Ok(Ok(listeners)) => listed(listeners.items, &context.listeners),
        Ok(Err(error)) => {
            warn!(%error, suspects = suspects.len(), "listeners unknown; nothing swept, tried again");
            return Swept::default();
        }
        Err(_) => {
            warn!(
                suspects = suspects.len(),
                "the API server does not answer; nothing swept"
            );
            return Swept::default();
        }
    };
    let (suspects, unjudged) = judgeable(&options.namespace_uid, suspects, &listeners);
    let listeners: Vec<Arc<SsmListener>> = listeners.known.into_iter().map(Arc::new).collect();
    let mut swept = end_unrecorded(context, identity, suspects, &listeners, deadline).await;
    swept
        .left
        .extend(unjudged.into_iter().map(|suspect| suspect.session));
    swept
}

/// Those suspects of which the listeners say whether they are recorded, and the others: of one of which a part can't be read
/// nobody knows, so that its sessions run on. Once it is deleted they are nobody's.
fn judgeable(
    namespace_uid: &str,
    suspects: Vec<Suspect>,
    listeners: &Listed<SsmListener>,
) -> (Vec<Suspect>, Vec<Suspect>) {
    let unread = listeners.unread.iter().chain(&listeners.partial);
    let unread = unread.filter(|metadata| metadata.deletion_timestamp.is_none());
    let unread: HashSet<Marker> = unread
        .filter_map(|metadata| Some(Marker::new(namespace_uid, metadata.uid.as_ref()?)))
        .collect();
    let suspects = suspects.into_iter();
    suspects.partition(|suspect| !unread.contains(&suspect.marker))
}

/// Ends those suspects that `listeners` don't record, some at the same time, until `deadline`.
async fn end_unrecorded(
    context: &Context,
    identity: &Identity,
    mut suspects: Vec<Suspect>,
    listeners: &[Arc<SsmListener>],
    deadline: Instant,
) -> Swept {
    let namespace_uid = &context.options.namespace_uid;
    let recorded = recorded(namespace_uid, listeners);
    suspects.retain(|Suspect { session, marker }| {
        !recorded
            .get(marker)
            .is_some_and(|sessions| sessions.contains(session.as_str()))
    });
    let calls = suspects.into_iter().map(|suspect| async move {
        let span = error_span!("sweep", session = %suspect.session);
        let call = context.terminate(identity, &suspect.session);
        let answer = call.instrument(span).await;
        (suspect, answer)
    });
    let mut answers = futures::stream::iter(calls).buffer_unordered(SWEPT_AT_ONCE);
    let mut swept = Swept::default();
    loop {
        let (Suspect { session, marker }, answer) = match timeout_at(deadline, answers.next()).await
        {
            Ok(Some(answer)) => answer,
            Ok(None) => break,
            Err(_) => {
                warn!(region = %identity.region,
                        "sessions that no listener records are left for the next poll: AWS is slow to end them");
                break;
            }
        };
        match answer {
            Ok(()) => {
                info!(%session, "session that no listener records terminated");
                context.metrics.swept.inc();
                let listener = listeners.iter().find(|listener| {
                    Marker::new(namespace_uid, &listener.uid().unwrap_or_default()) == marker
                });
                let event = SessionEvent::OrphanTerminated {
                    session: session.to_string(),
                };
                swept.terminated.push(session);
                events::publish_orphan(context, listener.map(AsRef::as_ref), event).await;
            }
            Err(error) => {
                warn!(%session, %error, request_id = error.request_id.as_str(), "session that no listener records not terminated; tried again");
                swept.left.push(session);
            }
        }
    }
    swept
}

#[cfg(test)]
mod tests;
