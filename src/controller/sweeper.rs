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

use kube::api::ListParams;
use kube::{Api, ResourceExt as _};
use tokio::time::{Instant, timeout};
use tracing::{Instrument as _, error_span, info, warn};

use super::context::Context;
use super::events::{self, SessionEvent};
use super::poll::is_over;
use crate::broker::{DescribedSession, Identity, Marker, SessionId};
use crate::crd::SsmListener;

#[derive(Clone, Copy, Debug)]
struct Suspicion {
    since: Instant,
    polls: u32,
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

/// The sessions that listeners record as live, by the listener's half of the marker.
fn recorded(
    namespace_uid: &str,
    listeners: &[Arc<SsmListener>],
) -> HashMap<Marker, HashSet<String>> {
    let of = |listener: &Arc<SsmListener>| {
        let marker = Marker::new(namespace_uid, &listener.uid().unwrap_or_default());
        let sessions = listener.status.iter().flat_map(|status| &status.sessions);
        let live = sessions.filter(|session| session.ended_at.is_none());
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

    /// AWS has taken the session's termination. It may show it as Active for a while, so it is suspected afresh.
    pub fn handle_terminated(&mut self, identity: &Identity, session: &SessionId) {
        if let Some(suspicions) = self.suspicions.get_mut(identity) {
            suspicions.remove(session);
        }
    }

    /// A complete poll. Gives the sessions that were seen unrecorded in two polls and for longer than the grace. What
    /// AWS itself calls over, or about to be, needs nobody to end it.
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
            };
            let mut suspicion = before.get(id).copied().unwrap_or(first);
            suspicion.polls = suspicion.polls.saturating_add(1);
            if suspicion.polls >= 2 && now.duration_since(suspicion.since) > self.grace {
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

    /// Asks the API server for the listeners as they are now, and ends those suspects that they don't record either.
    pub async fn sweep(&mut self, context: &Context, identity: &Identity, suspects: Vec<Suspect>) {
        if suspects.is_empty() {
            return;
        }
        let options = &context.options;
        let api: Api<SsmListener> = Api::namespaced(context.client.clone(), &options.namespace);
        // One list and not a GET for each: a listener that is gone can only be looked for by its UID.
        let listeners = match timeout(options.api_timeout, api.list(&ListParams::default())).await {
            Ok(Ok(listeners)) => listeners
                .items
                .into_iter()
                .map(Arc::new)
                .collect::<Vec<_>>(),
            Ok(Err(error)) => {
                warn!(%error, suspects = suspects.len(), "listeners unknown; nothing swept, tried again");
                return;
            }
            Err(_) => {
                warn!(
                    suspects = suspects.len(),
                    "the API server does not answer; nothing swept"
                );
                return;
            }
        };
        let recorded = recorded(&self.namespace_uid, &listeners);
        for Suspect { session, marker } in suspects {
            if recorded
                .get(&marker)
                .is_some_and(|sessions| sessions.contains(session.as_str()))
            {
                continue;
            }
            let span = error_span!("sweep", %session);
            let call = context.broker.terminate(identity, &session);
            match call.instrument(span).await {
                Ok(()) => {
                    info!(%session, "session that no listener records terminated");
                    self.handle_terminated(identity, &session);
                    context.metrics.swept.inc();
                    let listener = listeners.iter().find(|listener| {
                        Marker::new(&self.namespace_uid, &listener.uid().unwrap_or_default())
                            == marker
                    });
                    let event = SessionEvent::OrphanTerminated {
                        session: session.to_string(),
                    };
                    events::publish_orphan(context, listener.map(AsRef::as_ref), event).await;
                }
                Err(error) => {
                    warn!(%session, %error, request_id = error.request_id.as_str(), "session that no listener records not terminated; tried again");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::fixtures;

    const SECOND: Duration = Duration::from_secs(1);

    fn identity() -> Identity {
        Identity {
            region: "eu-test-1".into(),
            ssm_endpoint: None,
            ssmmessages_endpoint: None,
            role: None,
        }
    }

    fn active(id: &str, reason: &str) -> HashMap<SessionId, DescribedSession> {
        let session = fixtures::described(id, "Connected").reason(reason).build();
        HashMap::from([(session.session_id.clone(), session)])
    }

    fn marked(namespace_uid: &str, listener_uid: &str) -> String {
        Marker::new(namespace_uid, listener_uid).append_to("because")
    }

    const NAMESPACE: &str = "3f2a8f6e-8f5e-4f0e-9f59-0d9f1f0c2a01";
    const OTHER_NAMESPACE: &str = "7c7d2a55-51be-4a62-9a93-0a4e8a1f9b02";
    const LISTENER: &str = "b1d7a9a2-3a40-4b57-a2f5-5a3c0a9d7e03";

    #[test]
    fn an_unrecorded_session_is_suspect_after_two_polls_and_the_grace() {
        let mut sweeper = Sweeper::new(NAMESPACE, 60 * SECOND);
        let active = active("s-1", &marked(NAMESPACE, LISTENER));
        let start = Instant::now();
        let mut poll = |after| {
            sweeper
                .handle_poll(&identity(), &active, &[], start + after)
                .len()
        };
        assert_eq!(
            [poll(Duration::ZERO), poll(20 * SECOND), poll(60 * SECOND)],
            [0, 0, 0]
        );
        assert_eq!(poll(61 * SECOND), 1);
    }

    #[test]
    fn one_poll_is_never_enough_however_late_the_second() {
        let mut sweeper = Sweeper::new(NAMESPACE, 60 * SECOND);
        let active = active("s-1", &marked(NAMESPACE, LISTENER));
        let now = Instant::now();
        assert!(
            sweeper
                .handle_poll(&identity(), &active, &[], now + 600 * SECOND)
                .is_empty()
        );
    }

    #[test]
    fn a_session_that_vanished_in_between_starts_afresh() {
        let mut sweeper = Sweeper::new(NAMESPACE, 60 * SECOND);
        let active = active("s-1", &marked(NAMESPACE, LISTENER));
        let now = Instant::now();
        let _ = sweeper.handle_poll(&identity(), &active, &[], now);
        let _ = sweeper.handle_poll(&identity(), &HashMap::new(), &[], now + 30 * SECOND);
        assert!(
            sweeper
                .handle_poll(&identity(), &active, &[], now + 90 * SECOND)
                .is_empty()
        );
    }

    #[test]
    fn what_aws_is_ending_already_is_not_suspect() {
        let mut sweeper = Sweeper::new(NAMESPACE, SECOND);
        let now = Instant::now();
        for status in ["Terminating", "Terminated", "Failed"] {
            let session = fixtures::described("s-1", status);
            let session = session.reason(&marked(NAMESPACE, LISTENER)).build();
            let active = HashMap::from([(session.session_id.clone(), session)]);
            for round in 0..3 {
                let at = now + round * 60 * SECOND;
                let suspects = sweeper.handle_poll(&identity(), &active, &[], at);
                assert!(
                    suspects.is_empty() && !sweeper.suspects(&identity()),
                    "{status}"
                );
            }
        }
    }

    #[test]
    fn a_session_that_was_just_terminated_takes_the_grace_again() {
        let mut sweeper = Sweeper::new(NAMESPACE, 60 * SECOND);
        let active = active("s-1", &marked(NAMESPACE, LISTENER));
        let start = Instant::now();
        let poll = |sweeper: &mut Sweeper, after: u32| {
            let suspects = sweeper.handle_poll(&identity(), &active, &[], start + after * SECOND);
            suspects.len()
        };
        assert_eq!([poll(&mut sweeper, 0), poll(&mut sweeper, 61)], [0, 1]);
        let session = SessionId::parse("s-1").expect("an id");
        sweeper.handle_terminated(&identity(), &session);
        assert!(!sweeper.suspects(&identity()));
        let later = [81, 101, 141].map(|after| poll(&mut sweeper, after));
        assert_eq!(later, [0, 0, 0]);
        assert_eq!(poll(&mut sweeper, 142), 1);
    }

    #[test]
    fn strangers_and_other_installations_are_never_suspect() {
        let mut sweeper = Sweeper::new(NAMESPACE, SECOND);
        let now = Instant::now();
        for reason in ["lunch", &marked(OTHER_NAMESPACE, LISTENER)] {
            let active = active("s-1", reason);
            for round in 0..5 {
                let at = now + round * 60 * SECOND;
                assert!(
                    sweeper
                        .handle_poll(&identity(), &active, &[], at)
                        .is_empty(),
                    "{reason}"
                );
            }
        }
    }

    #[test]
    fn what_its_listener_records_as_live_is_left_alone_and_what_it_records_as_ended_is_not() {
        let mut sweeper = Sweeper::new(NAMESPACE, SECOND);
        let active = active("s-1", &marked(NAMESPACE, LISTENER));
        let live = fixtures::listener("sql")
            .uid(LISTENER)
            .serving("relay-a", "one", "s-1");
        let ended = Arc::new(live.clone().ended("s-1").build());
        let live = Arc::new(live.build());
        let now = Instant::now();
        for round in 0..3 {
            let at = now + round * 60 * SECOND;
            let listeners = [Arc::clone(&live)];
            assert!(
                sweeper
                    .handle_poll(&identity(), &active, &listeners, at)
                    .is_empty()
            );
        }
        let listeners = [ended];
        let _ = sweeper.handle_poll(&identity(), &active, &listeners, now + 300 * SECOND);
        let suspects = sweeper.handle_poll(&identity(), &active, &listeners, now + 400 * SECOND);
        assert_eq!(suspects.len(), 1);
    }
}
