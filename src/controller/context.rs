//! What every reconciler of one controller shares: clients, caches, and what was learned of relays and AWS.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{Resource, ResourceExt as _};
use kube_runtime::events::{Recorder, Reporter};
use kube_runtime::reflector::{ObjectRef, Store};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::drain::Drain;
use super::failures::Failures;
use super::metrics::Metrics;
use super::options::ControllerOptions;
use super::poll::Polls;
use super::relays::RelaysView;
use super::scopes::scope::{Contents, Scope};
use super::triggers::Trigger;
use super::turns::Turns;
use crate::broker::{Broker, BrokerError, ErrorKind, Identity, SessionId};
use crate::crd::condition::StalledReason;
use crate::crd::{SsmListener, SsmSession, SsmSessionClass};
use crate::lease::Term;

/// How long one session's termination may take: a tenant's endpoint that does not answer must keep no other's alive.
const TERMINATE_MAX: Duration = Duration::from_secs(10);

/// The caches of one kind, one for each namespace that is watched.
#[derive(Clone, Debug)]
pub struct Stores<K: Resource<DynamicType = ()> + Clone + 'static>(pub Vec<Store<K>>);

impl<K: Resource<DynamicType = ()> + Clone + 'static> Stores<K> {
    /// The object, if a cache has it.
    #[must_use]
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        let object = ObjectRef::new(name).within(namespace);
        self.0.iter().find_map(|store| store.get(&object))
    }

    /// All objects for which `predicate` holds.
    #[must_use]
    pub fn filter(&self, predicate: impl Fn(&K) -> bool) -> Vec<Arc<K>> {
        let all = self.0.iter().flat_map(Store::state);
        all.filter(|object| predicate(object)).collect()
    }
}

/// What the API server refused of what a session asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The generation of the session that asked for it.
    pub generation: i64,
    /// The API server's words.
    pub message: String,
    /// A right, a quota or a policy forbids it, which may be mended without a new generation.
    pub forbidden: bool,
}

/// What one process remembers of a session between two reconciles; all of it may be lost with the process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// The trouble that was seen last, and since when.
    pub trouble: Option<(StalledReason, Instant)>,
    /// Since when the end of each AWS session is looked for.
    pub ending: HashMap<String, Instant>,
    /// With what each AWS session of the status was started: its listener may be gone before its end is found.
    pub started_with: HashMap<String, Identity>,
    /// AWS sessions whose end was reported, so that none is reported twice.
    pub finished: HashSet<String>,
    /// Since when it is being deleted, or handed over to another installation.
    pub leaving: Option<Instant>,
    /// Since when it is let go because the installation is asked to drain.
    pub draining: Option<Instant>,
    /// The finalizer of another installation that holds it, once that was logged.
    pub held_by: Option<String>,
    /// Its status has said that it is held by another: what comes after is nobody's who has nothing to do with it.
    pub last_word: bool,
    /// The last refusal, until the same writes succeed.
    pub refusal: Option<Refusal>,
}

/// Shared by all reconcilers and tasks.
pub struct Context {
    /// For the API server.
    pub client: kube::Client,
    /// For AWS: to describe and to terminate, never to start.
    pub broker: Arc<dyn Broker>,
    /// How to behave.
    pub options: ControllerOptions,
    /// What is counted.
    pub metrics: Metrics,
    /// Who publishes Events.
    pub reporter: Reporter,
    /// Publishes those that may repeat, and counts repetitions in one Event for some minutes.
    pub recorder: Recorder,
    /// Cached sessions of the watched namespaces.
    pub sessions: Stores<SsmSession>,
    /// Cached Services that carry our label.
    pub services: Stores<Service>,
    /// Cached slices that carry our label.
    pub slices: Stores<EndpointSlice>,
    /// Cached classes.
    pub classes: Store<SsmSessionClass>,
    /// Cached listeners.
    pub listeners: Store<SsmListener>,
    /// Where Services and slices are watched, and whether they could be read.
    pub scopes: Vec<Arc<Scope>>,
    /// What is known of relays.
    pub relays: watch::Receiver<RelaysView>,
    /// Whether the installation is asked to drain.
    pub drain: watch::Receiver<Drain>,
    /// What AWS said.
    pub polls: Polls,
    /// True once all was read that is not some namespace's own; nothing is decided before.
    pub synced: watch::Receiver<bool>,
    /// For how long this controller may act; the client heeds it too.
    pub term: Term,
    /// Ask for a reconcile of a session, one trigger for each scope of watching.
    pub session_triggers: Vec<Arc<Trigger<SsmSession>>>,
    /// Asks for a reconcile of a listener.
    pub listener_trigger: Arc<Trigger<SsmListener>>,
    /// Failures of sessions.
    pub session_backoff: Failures,
    /// Failures of listeners.
    pub listener_backoff: Failures,
    /// By UID of the session.
    pub memories: Mutex<HashMap<String, Memory>>,
    /// By UID of the listener: AWS sessions that this controller terminated, with what identity, and with an answer
    /// without error.
    pub terminated: Mutex<HashMap<String, HashSet<(Identity, SessionId)>>>,
    /// Which reconciles of listeners may wait for AWS.
    pub turns: Turns,
    /// By UID of the listener: sessions of which was said that they are on record with an identity not their listener's.
    pub strangers: Mutex<HashMap<String, HashSet<String>>>,
    /// By UID of the listener: the relay to which it is being bound, until the cache shows it.
    pub reserved: Mutex<HashMap<String, String>>,
    /// By UID of the listener: when this controller first saw that it is being deleted.
    pub deletions: Mutex<HashMap<String, Instant>>,
}

fn retain<V>(map: &Mutex<HashMap<String, V>>, known: &HashSet<String>) {
    let mut map = map.lock().unwrap_or_else(PoisonError::into_inner);
    map.retain(|uid, _| known.contains(uid));
}

impl Context {
    /// Asks for a reconcile of a session.
    pub fn trigger_session(&self, namespace: &str, name: &str) {
        for trigger in &self.session_triggers {
            trigger.ask(ObjectRef::new(name).within(namespace));
        }
    }

    /// Asks for a reconcile of a listener, and of its session.
    pub fn trigger_listener(&self, listener: &SsmListener) {
        self.listener_trigger.ask(ObjectRef::from_obj(listener));
        let reference = &listener.spec.session_ref;
        self.trigger_session(&reference.namespace, &reference.name);
    }

    /// Ends an AWS session.
    ///
    /// # Errors
    /// AWS's, or none of it in time: whatever was carried out all the same is found out at the next try. Without a call when
    /// the term is over.
    pub async fn terminate(
        &self,
        identity: &Identity,
        session: &SessionId,
    ) -> Result<(), BrokerError> {
        let failed = |message| {
            let kind = ErrorKind::Unavailable;
            BrokerError::new(kind, "TerminateSession", message)
        };
        self.term.check().map_err(|over| failed(over.to_string()))?;
        // Below the deadline of every reconcile.
        let within = TERMINATE_MAX.min(self.options.api_timeout);
        let call = self.broker.terminate(identity, session);
        timeout(within, call)
            .await
            .unwrap_or_else(|_| Err(failed(format!("no answer within {within:?}"))))
    }

    /// What is remembered of a session.
    #[must_use]
    pub fn memory(&self, uid: &str) -> Memory {
        let memories = self.memories.lock().unwrap_or_else(PoisonError::into_inner);
        memories.get(uid).cloned().unwrap_or_default()
    }

    /// Remembers this of a session.
    pub fn remember(&self, uid: &str, memory: Memory) {
        let mut memories = self.memories.lock().unwrap_or_else(PoisonError::into_inner);
        memories.insert(uid.to_owned(), memory);
    }

    /// Forgets a session that is gone.
    pub fn forget_session(&self, session: &SsmSession) {
        let uid = session.uid().unwrap_or_default();
        self.memories
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&uid);
        self.polls.want(&uid, None);
    }

    /// Forgets objects that no cache has: one whose finalizer somebody took away is never let go by a reconcile, and AWS
    /// would be asked for ever for what was looked for on its behalf. Only for caches that are filled.
    pub fn forget_absent(&self) {
        let sessions = self.sessions.filter(|_| true);
        let sessions: HashSet<String> = sessions.iter().filter_map(|s| s.uid()).collect();
        let listeners = self.listeners.state();
        let listeners: HashSet<String> = listeners.iter().filter_map(|l| l.uid()).collect();
        retain(&self.memories, &sessions);
        retain(&self.terminated, &listeners);
        retain(&self.strangers, &listeners);
        retain(&self.reserved, &listeners);
        retain(&self.deletions, &listeners);
        let is_there = |uid: &str| sessions.contains(uid) || listeners.contains(uid);
        self.polls.keep_wants_of(is_there);
    }

    /// When this controller first saw that a listener is being deleted; now, if it had not yet.
    #[must_use]
    pub fn deleting_since(&self, listener_uid: &str) -> Instant {
        let mut deletions = self
            .deletions
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *deletions
            .entry(listener_uid.to_owned())
            .or_insert_with(Instant::now)
    }

    /// The AWS sessions of a listener that this controller terminated, and with what identity.
    #[must_use]
    pub fn terminated(&self, listener_uid: &str) -> HashSet<(Identity, SessionId)> {
        let terminated = self
            .terminated
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        terminated.get(listener_uid).cloned().unwrap_or_default()
    }

    /// What is known of the Services and slices of a namespace.
    #[must_use]
    pub fn contents(&self, namespace: &str) -> Contents {
        let scope = self.scopes.iter().find(|scope| scope.covers(namespace));
        scope.map_or(Contents::Known, |scope| scope.contents())
    }

    /// Waits until all was read that is not some namespace's own; false when the controller ends before.
    pub async fn synced(&self) -> bool {
        self.synced.clone().wait_for(|synced| *synced).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::fake_aws::FakeAws;
    use crate::controller::fixtures::{aws, context, relays};
    use crate::controller::poll::Want;
    use crate::identity::identity_of;

    #[tokio::test]
    async fn what_no_cache_has_is_forgotten() {
        let context = context(Arc::new(FakeAws::default()), relays(&[]));
        let identity = identity_of(&aws());
        let session = SessionId::parse("s-1").expect("an id");
        let want = Want {
            namespace: "shop".into(),
            name: "db".into(),
            sessions: HashSet::from([(identity.clone(), session)]),
        };
        context.polls.want("gone", Some(want));
        let memory = Memory {
            leaving: Some(Instant::now()),
            ..Memory::default()
        };
        context.remember("gone", memory);
        let _ = context.deleting_since("gone");
        context.forget_absent();
        assert_eq!(context.memory("gone"), Memory::default());
        assert!(context.polls.wanted(&identity).is_empty());
        assert!(context.deletions.lock().expect("no panic").is_empty());
    }
}
