//! The listeners that are bound to this relay, and those that it serves: settling makes the second follow the first.
//!
//! Settling is level-triggered and idempotent. A listener that leaves is stopped at once; one that comes back while it
//! is still being stopped is served anew once the relay has let go of it, never over it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kube::Api;
use tracing::{error, error_span, info, warn};

use super::DataPlane;
use super::convert::{id_of, inherited_of, recorded_port, spec_of};
use super::record::{Desk, KubeRecorder};
use super::status::Writer;
use crate::crd::SsmListener;
use crate::crd::listener::ListenerState;
use crate::reading::{Guarded, Unreadable};
use crate::relay::{EndReason, ListenerId, ListenerSpec};

/// The listeners of one relay.
pub struct Listeners<D> {
    api: Api<Guarded<SsmListener>>,
    desk: Desk,
    namespace_uid: String,
    relay: D,
    /// As the API server shows them: bound to this relay, by the selector of the watch.
    bound: BTreeMap<ListenerId, SsmListener>,
    /// As they were given to the relay, until it has let go of them.
    held: BTreeMap<ListenerId, Held>,
    /// UIDs of those of which was said that they can't be read, and how many lists were complete when each was last seen.
    unread: BTreeMap<String, u64>,
    lists: u64,
}

/// A listener that the relay was told to serve.
struct Held {
    recorder: Arc<KubeRecorder>,
    spec: ListenerSpec,
    phase: Phase,
}

/// What the relay was told last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// To serve.
    Serving,
    /// To stop, since the listener is being deleted; it is never served again.
    Deleting,
    /// To stop, since the listener is not ours any more; it may come back.
    Leaving,
}

impl<D: DataPlane> Listeners<D> {
    /// None so far.
    pub fn new(
        api: Api<Guarded<SsmListener>>,
        desk: Desk,
        namespace_uid: String,
        relay: D,
    ) -> Self {
        Self {
            api,
            desk,
            namespace_uid,
            relay,
            bound: BTreeMap::new(),
            held: BTreeMap::new(),
            unread: BTreeMap::new(),
            lists: 0,
        }
    }

    /// A listener as the watch shows it. One that can't be read is what can be made of it, and what it was before: with a
    /// spec it is served, it is stopped when it is deleted, and it keeps no other from being served.
    pub fn read(&mut self, object: Guarded<SsmListener>) -> Option<SsmListener> {
        let Unreadable { metadata, raw, why } = match object.0 {
            Ok(object) => {
                self.unread
                    .remove(object.metadata.uid.as_deref().unwrap_or_default());
                return Some(object);
            }
            Err(unreadable) => *unreadable,
        };
        let (name, uid) = (metadata.name.clone(), metadata.uid.clone());
        let is_it = |known: &&SsmListener| known.metadata.uid == uid;
        let known = self.bound.values().find(is_it);
        let salvaged = SsmListener::salvaged(metadata, &raw, known);
        let said = self.unread.insert(uid.unwrap_or_default(), self.lists);
        if said.is_none() {
            error!(listener = name, %why, served = salvaged.is_some(),
                "a listener can't be read as a whole: it is served only by a spec that can be, or could be before; \
                 others are not concerned");
        }
        salvaged
    }

    /// The complete list, as it was read: whatever is not in it has left.
    pub fn replace(&mut self, objects: Vec<SsmListener>) {
        self.unread.retain(|_, seen| *seen == self.lists);
        self.lists += 1;
        self.bound.clear();
        for object in objects {
            self.note(object);
        }
        self.settle();
    }

    /// One listener is new or has changed.
    pub fn apply(&mut self, object: SsmListener) {
        self.note(object);
        self.settle();
    }

    /// One listener has left: it was deleted, or is bound elsewhere.
    pub fn remove(&mut self, object: &SsmListener) {
        if let Some(id) = id_of(object) {
            self.bound.remove(&id);
        }
        let uid = object.metadata.uid.as_deref();
        self.unread.remove(uid.unwrap_or_default());
        self.settle();
    }

    fn note(&mut self, object: SsmListener) {
        // The selector of the watch promises it; an object that is not bound here is nothing to serve.
        if object.spec.relay.as_deref() != Some(self.desk.writer.relay.as_str()) {
            return;
        }
        let Some(id) = id_of(&object) else { return };
        if let Some(held) = self.held.get(&id) {
            held.recorder.observe(&object);
        }
        self.bound.insert(id, object);
    }

    /// Whether settling again may do more: something waits for the relay to let go of a listener, or the relay has let
    /// go of one that it was to serve.
    #[must_use]
    pub fn is_unsettled(&self) -> bool {
        let live = self.live();
        self.held.iter().any(|(id, held)| match held.phase {
            Phase::Serving => held.recorder.has_given_up() || !live.contains(id),
            Phase::Deleting | Phase::Leaving => true,
        })
    }

    fn live(&self) -> BTreeSet<ListenerId> {
        self.relay.listeners().into_iter().collect()
    }

    /// Tells the relay what has changed.
    pub fn settle(&mut self) {
        self.stop_and_update();
        self.forget_stopped();
        self.begin_new();
        self.desk
            .metrics
            .listeners
            .set(i64::try_from(self.bound.len()).unwrap_or(i64::MAX));
    }

    fn stop_and_update(&mut self) {
        for (id, held) in &mut self.held {
            let object = self.bound.get(id);
            let next = match (held.phase, object) {
                (Phase::Deleting, object) => {
                    if object.is_none() {
                        // Nobody reads the record of an object that is gone.
                        held.recorder.give_up();
                    }
                    Phase::Deleting
                }
                (Phase::Serving, Some(object)) if is_deleted(object) => Phase::Deleting,
                (Phase::Serving, Some(object)) if !held.recorder.has_given_up() => {
                    let spec = wish(object, &self.namespace_uid);
                    if spec != held.spec {
                        info!(listener = %id, "the listener changed: serving it as it says now");
                        held.spec = spec.clone();
                        let inherited = inherited_of(object, &self.desk.writer.relay);
                        self.relay
                            .ensure(id, spec, inherited, held.recorder.clone());
                    }
                    Phase::Serving
                }
                (Phase::Serving, Some(_) | None) | (Phase::Leaving, _) => Phase::Leaving,
            };
            if next == held.phase {
                continue;
            }
            held.phase = next;
            match next {
                Phase::Serving => {}
                Phase::Deleting => {
                    info!(listener = %id, "the listener is deleted: ending its sessions");
                    self.relay.stop(id, EndReason::Deleted);
                }
                Phase::Leaving => {
                    info!(listener = %id, "the listener left this relay: ending its sessions");
                    held.recorder.give_up();
                    self.relay.stop(id, EndReason::Replaced);
                }
            }
        }
    }

    /// Forgets what the relay has let go of, be it that serving it has panicked; a listener being deleted only with its
    /// object, so that it is not begun again.
    fn forget_stopped(&mut self) {
        let live = self.live();
        let bound = &self.bound;
        self.held.retain(|id, held| match held.phase {
            Phase::Serving | Phase::Leaving => live.contains(id),
            Phase::Deleting => {
                live.contains(id) || (bound.contains_key(id) && held.recorder.has_recorded_end())
            }
        });
    }

    /// Begins to serve what is new, those that have a port of ours on record first: they take it back before any new
    /// port is given.
    fn begin_new(&mut self) {
        let relay = self.desk.writer.relay.clone();
        let mut new: Vec<&ListenerId> = self
            .bound
            .keys()
            .filter(|id| !self.held.contains_key(*id))
            .collect();
        new.sort_by_key(|id| recorded_port(&self.bound[*id], &relay).is_none());
        for id in new.into_iter().cloned().collect::<Vec<_>>() {
            let object = &self.bound[&id];
            if is_deleted(object) && !waits_for_our_word(object, &self.desk.writer) {
                continue;
            }
            let Some(recorder) =
                KubeRecorder::new(self.api.clone(), self.desk.clone(), object.clone())
            else {
                warn!(listener = %id, "the listener has no UID: it is not served");
                continue;
            };
            let recorder = Arc::new(recorder);
            let spec = wish(object, &self.namespace_uid);
            let inherited = inherited_of(object, &relay);
            // Of the highest level, so that it is there whatever the filter says.
            let of = &object.spec.session_ref;
            let ssmsession = format!("{}/{}", of.namespace, of.name);
            let span = error_span!("listener", ssmsession);
            span.in_scope(|| {
                info!(listener = %id, port = inherited.port, "serving a listener");
                self.relay
                    .ensure(&id, spec.clone(), inherited, recorder.clone());
            });
            let mut phase = Phase::Serving;
            if is_deleted(object) {
                // Taken over only so that what an earlier run left is ended, and its end is on record.
                self.relay.stop(&id, EndReason::Deleted);
                phase = Phase::Deleting;
            }
            self.held.insert(
                id,
                Held {
                    recorder,
                    spec,
                    phase,
                },
            );
        }
    }
}

fn wish(object: &SsmListener, namespace_uid: &str) -> ListenerSpec {
    let generation = object.metadata.generation.unwrap_or_default();
    let uid = object.metadata.uid.as_deref().unwrap_or_default();
    spec_of(&object.spec, generation, namespace_uid, uid)
}

fn is_deleted(object: &SsmListener) -> bool {
    object.metadata.deletion_timestamp.is_some()
}

/// Whether the controller waits for this run's word that all of a deleted listener has ended. Without a status nobody
/// ever served it.
fn waits_for_our_word(object: &SsmListener, writer: &Writer) -> bool {
    object.status.as_ref().is_some_and(|status| {
        let ours = status.relay == writer.relay && status.incarnation == writer.incarnation;
        match status.state {
            ListenerState::Ended => !ours,
            ListenerState::Starting
            | ListenerState::Serving
            | ListenerState::Waiting
            | ListenerState::Unknown => true,
        }
    })
}
