//! What is read before a listener is decided about.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use kube::api::ObjectMeta;
use kube::{Api, Resource as _, ResourceExt as _};
use tokio::time::Instant;

use crate::broker::{Identity, Marker, SessionId};
use crate::controller::context::Context;
use crate::controller::drain::Drain;
use crate::controller::error::Error;
use crate::controller::poll::Snapshot;
use crate::controller::relays::RelaysView;
use crate::controller::trust;
use crate::crd::{SsmListener, SsmSession, session_finalizer, session_holder};
use crate::reading::Guarded;

/// The `SsmSession` of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionFound {
    /// It is there and nobody else's; or nobody asked.
    There,
    /// The API server itself says that it is gone.
    Gone,
    /// The API server itself says that another installation holds it, and that this one does not.
    Anothers,
}

/// Everything that a decision about a listener looks at.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The listener.
    pub listener: Arc<SsmListener>,
    /// Whether the namespace of its `SsmSession` is watched by this controller.
    pub is_watched: bool,
    /// Whether the installation is asked to drain.
    pub drain: Drain,
    /// Its `SsmSession`.
    pub session: SessionFound,
    /// When this controller first saw that it is being deleted.
    pub deleting_since: Option<Instant>,
    /// The relays.
    pub relays: RelaysView,
    /// What the reasons of its AWS sessions end with.
    pub marker: Marker,
    /// How many other listeners each relay has.
    pub load: BTreeMap<String, usize>,
    /// Relays of the other replicas of the same port.
    pub siblings: BTreeSet<String>,
    /// What AWS said of the listener's identities.
    pub snapshots: HashMap<Identity, Arc<Snapshot>>,
    /// AWS sessions that this controller terminated, and with what identity, answered without error.
    pub terminated: HashSet<(Identity, SessionId)>,
}

/// Reads caches, and the API server where a cache says that the session is gone.
pub async fn observe(listener: &Arc<SsmListener>, context: &Context) -> Result<Observed, Error> {
    let uid = listener.uid().unwrap_or_default();
    let is_watched = context
        .options
        .watches(&listener.spec.session_ref.namespace);
    let is_deleting = listener.metadata.deletion_timestamp.is_some();
    let drain = *context.drain.borrow();
    let session = if is_deleting || !is_watched || drain == Drain::Asked {
        SessionFound::There
    } else {
        find_session(listener, context).await?
    };
    let siblings = siblings(listener, &context.listeners.state());
    let snapshots = trust::identities(&listener.spec)
        .into_iter()
        .map(|identity| (identity.clone(), context.polls.snapshot(&identity)));
    Ok(Observed {
        listener: Arc::clone(listener),
        is_watched,
        drain,
        session,
        deleting_since: is_deleting.then(|| context.deleting_since(&uid)),
        relays: context.relays.borrow().clone(),
        marker: Marker::new(&context.options.namespace_uid, &uid),
        load: BTreeMap::new(),
        siblings,
        snapshots: snapshots.collect(),
        terminated: context.terminated(&uid),
    })
}

/// A cache that lacks the session, or shows it as another installation's, may only be late, so the API server is asked
/// before anything is deleted.
async fn find_session(listener: &SsmListener, context: &Context) -> Result<SessionFound, Error> {
    let reference = &listener.spec.session_ref;
    let ours = session_finalizer(&context.options.installation());
    let judge = |metadata: Option<&ObjectMeta>| match metadata {
        Some(metadata) if metadata.uid.as_ref() == Some(&reference.uid) => {
            let finalizers = metadata.finalizers.as_deref().unwrap_or_default();
            if session_holder(finalizers).is_some() && !finalizers.contains(&ours) {
                SessionFound::Anothers
            } else {
                SessionFound::There
            }
        }
        Some(_) | None => SessionFound::Gone,
    };
    let cached = context.sessions.get(&reference.namespace, &reference.name);
    if judge(cached.as_deref().map(SsmSession::meta)) == SessionFound::There {
        return Ok(SessionFound::There);
    }
    // One that can't be read is there all the same.
    let api: Api<Guarded<SsmSession>> =
        Api::namespaced(context.client.clone(), &reference.namespace);
    let action = format!("read SsmSession {}/{}", reference.namespace, reference.name);
    let found = api
        .get_opt(&reference.name)
        .await
        .map_err(Error::api(action))?;
    Ok(judge(found.as_ref().map(Guarded::meta)))
}

fn siblings(listener: &SsmListener, listeners: &[Arc<SsmListener>]) -> BTreeSet<String> {
    let (uid, spec) = (listener.uid(), &listener.spec);
    let sibling = |other: &&Arc<SsmListener>| {
        other.uid() != uid
            && other.spec.session_ref.uid == spec.session_ref.uid
            && other.spec.port == spec.port
    };
    listeners
        .iter()
        .filter(sibling)
        .filter_map(|other| other.spec.relay.clone())
        .collect()
}

/// How many listeners each relay has or is about to have, not counting this one.
#[must_use]
pub fn load(
    listener: &SsmListener,
    listeners: &[Arc<SsmListener>],
    reserved: &HashMap<String, String>,
) -> BTreeMap<String, usize> {
    let uid = listener.uid();
    let mut load = BTreeMap::new();
    for other in listeners.iter().filter(|other| other.uid() != uid) {
        let reservation = other.uid().and_then(|uid| reserved.get(&uid));
        if let Some(relay) = reservation.or(other.spec.relay.as_ref()) {
            *load.entry(relay.clone()).or_default() += 1;
        }
    }
    load
}
