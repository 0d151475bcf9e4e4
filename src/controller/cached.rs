//! What goes into the caches: objects that can be read, what can be made of those that can't, and of each no more than is
//! read here.
//!
//! One that can't be read stops nobody else, and grants nothing new: what can't be salvaged is not in the cache, and so
//! nothing is decided for it. What runs for it runs on until it is deleted, which can always be seen.

use std::collections::HashSet;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{Resource, ResourceExt as _};
use kube_runtime::reflector::{ObjectRef, Store};
use kube_runtime::watcher::Event;
use tracing::error;

use super::metrics::{Kind, KindLabel, Metrics};
use super::names::FIELD_MANAGER;
use crate::crd::{SsmListener, SsmSession, SsmSessionClass, SsmSessionSpec};
use crate::reading::{Guarded, Unreadable};

/// How objects of a kind are kept.
pub trait Cached: Sized {
    /// What of one that can't be read is known all the same, if that is enough to decide about it. `previous`: as it was
    /// when it could be read last.
    fn salvage(_unreadable: &Unreadable, _previous: Option<&Self>) -> Option<Self> {
        None
    }

    /// Drops what nobody reads of it.
    fn slim(&mut self) {}
}

impl Cached for SsmSession {
    /// One that is being deleted can always be let go, as what it was before if nothing says what it is.
    fn salvage(unreadable: &Unreadable, previous: Option<&Self>) -> Option<Self> {
        let mut salvaged = Self::salvaged(unreadable.metadata.clone(), &unreadable.raw)?;
        let previous = previous.filter(|previous| previous.uid() == salvaged.uid());
        if let Some(previous) = previous
            && salvaged.spec == SsmSessionSpec::default()
        {
            salvaged.spec = previous.spec.clone();
        }
        Some(salvaged)
    }
}

impl Cached for SsmListener {
    /// What it was before, where it does not say what it is: the AWS sessions on record are to be ended.
    fn salvage(unreadable: &Unreadable, previous: Option<&Self>) -> Option<Self> {
        let metadata = unreadable.metadata.clone();
        let previous = previous.filter(|previous| previous.uid() == metadata.uid);
        Self::salvaged(metadata.clone(), &unreadable.raw).or_else(|| {
            previous.map(|previous| Self {
                metadata,
                ..previous.clone()
            })
        })
    }
}

impl Cached for SsmSessionClass {}

impl Cached for EndpointSlice {}

impl Cached for Lease {}

impl Cached for Service {
    /// Only of our own fields it matters who has written them.
    fn slim(&mut self) {
        if let Some(entries) = &mut self.metadata.managed_fields {
            entries.retain(|entry| entry.manager.as_deref() == Some(FIELD_MANAGER));
            entries.shrink_to_fit();
        }
    }
}

/// What can be read of a list, and what can be made of the rest of it.
pub fn salvaged<K: Cached>(items: Vec<Guarded<K>>) -> impl Iterator<Item = K> {
    items.into_iter().filter_map(|item| match item.0 {
        Ok(object) => Some(object),
        Err(unreadable) => K::salvage(&unreadable, None),
    })
}

/// A session as it was written: as it was before, with what can be read now, where it can't be read as a whole.
pub fn reread(before: &SsmSession, written: Guarded<SsmSession>) -> SsmSession {
    written.0.unwrap_or_else(|unreadable| {
        let metadata = unreadable.metadata.clone();
        SsmSession::salvage(&unreadable, Some(before)).unwrap_or_else(|| SsmSession {
            metadata,
            ..before.clone()
        })
    })
}

/// Reads the events of one watch for its cache, and says once of each object that can't be read.
pub struct Reader<K: Resource<DynamicType = ()> + Clone + 'static> {
    store: Store<K>,
    kind: Kind,
    metrics: Metrics,
    unreadable: HashSet<ObjectRef<K>>,
    /// What it has added to the metric, which watches of several namespaces share.
    counted: i64,
}

impl<K: Cached + Resource<DynamicType = ()> + Clone> Reader<K> {
    /// `store`: what the events that it gives go into.
    pub fn new(store: Store<K>, kind: Kind, metrics: &Metrics) -> Self {
        Self {
            store,
            kind,
            metrics: metrics.clone(),
            unreadable: HashSet::new(),
            counted: 0,
        }
    }

    /// The event for the cache, if it has one.
    pub fn read(&mut self, event: Event<Guarded<K>>) -> Option<Event<K>> {
        let event = match event {
            Event::Init => {
                self.unreadable.clear();
                Some(Event::Init)
            }
            Event::InitDone => Some(Event::InitDone),
            Event::InitApply(object) => self.object(object).ok().map(Event::InitApply),
            Event::Apply(object) => match self.object(object) {
                Ok(object) => Some(Event::Apply(object)),
                // Nothing is decided by what it was before.
                Err(key) => self.cached(&key).map(Event::Delete),
            },
            Event::Delete(object) => {
                let key = key_of(&object);
                self.unreadable.remove(&key);
                let object = object.0.ok().or_else(|| self.cached(&key));
                object.map(Event::Delete)
            }
        };
        let count = i64::try_from(self.unreadable.len()).unwrap_or(i64::MAX);
        self.count(count);
        event
    }

    fn cached(&self, key: &ObjectRef<K>) -> Option<K> {
        self.store.get(key).map(|object| object.as_ref().clone())
    }

    fn object(&mut self, object: Guarded<K>) -> Result<K, ObjectRef<K>> {
        let key = key_of(&object);
        let unreadable = match object.0 {
            Ok(mut object) => {
                self.unreadable.remove(&key);
                object.slim();
                return Ok(object);
            }
            Err(unreadable) => unreadable,
        };
        let previous = self.store.get(&key);
        let salvaged = K::salvage(&unreadable, previous.as_deref());
        if self.unreadable.insert(key.clone()) {
            let (namespace, name) = (key.namespace.as_deref().unwrap_or_default(), &key.name);
            error!(
                kind = ?self.kind, namespace, %name, why = %unreadable.why, decided_about = salvaged.is_some(),
                "an object can't be read: others are not concerned, and nothing new is begun for it. Mend what `why` names, \
                 or delete it: then all that runs for it ends"
            );
        }
        salvaged.ok_or(key)
    }
}

impl<K: Resource<DynamicType = ()> + Clone> Reader<K> {
    fn count(&mut self, count: i64) {
        let labels = KindLabel { kind: self.kind };
        let gauge = &self.metrics.unreadable_objects;
        gauge.get_or_create(&labels).inc_by(count - self.counted);
        self.counted = count;
    }
}

/// What a watch that has ended knew is nobody's state any more.
impl<K: Resource<DynamicType = ()> + Clone> Drop for Reader<K> {
    fn drop(&mut self) {
        self.count(0);
    }
}

fn key_of<K: Resource<DynamicType = ()>>(object: &Guarded<K>) -> ObjectRef<K> {
    let key = ObjectRef::new(&object.name_any());
    match object.namespace() {
        Some(namespace) => key.within(&namespace),
        None => key,
    }
}

#[cfg(test)]
mod tests {
    use kube::api::ObjectMeta;
    use kube_runtime::reflector;
    use kube_runtime::reflector::store::Writer;
    use serde_json::{Value, json};

    use super::*;

    const LATE: &str = "9999-12-31T23:59:59Z";

    fn session(name: &str) -> Value {
        let mut spec = SsmSessionSpec::default();
        "why".clone_into(&mut spec.reason);
        let mut session = SsmSession::new(name, spec);
        session.metadata.namespace = Some("shop".to_owned());
        session.metadata.uid = Some(name.to_owned());
        serde_json::to_value(session).expect("it is data")
    }

    fn guarded(object: Value) -> Guarded<SsmSession> {
        serde_json::from_value(object).expect("whatever it is")
    }

    /// A cache with its reader, and how many objects can't be read.
    struct Cache {
        writer: Writer<SsmSession>,
        reader: Reader<SsmSession>,
        metrics: Metrics,
    }

    impl Cache {
        fn new() -> Self {
            let (store, writer) = reflector::store();
            let metrics = Metrics::default();
            let reader = Reader::new(store, Kind::SsmSession, &metrics);
            Self {
                writer,
                reader,
                metrics,
            }
        }

        fn handle(&mut self, event: Event<Guarded<SsmSession>>) {
            if let Some(event) = self.reader.read(event) {
                self.writer.apply_watcher_event(&event);
            }
        }

        fn names(&self) -> Vec<String> {
            let all = self.reader.store.state();
            let mut names: Vec<String> = all.iter().map(|session| session.name_any()).collect();
            names.sort();
            names
        }

        fn unreadable(&self) -> i64 {
            let labels = KindLabel {
                kind: Kind::SsmSession,
            };
            self.metrics.unreadable_objects.get_or_create(&labels).get()
        }
    }

    fn unspecified(name: &str) -> Value {
        let mut session = session(name);
        session["spec"] = json!("nonsense");
        session
    }

    #[test]
    fn one_that_can_not_be_read_keeps_no_other_out_of_the_cache() {
        let mut cache = Cache::new();
        cache.handle(Event::Init);
        for object in [unspecified("bad"), session("good"), json!(7)] {
            cache.handle(Event::InitApply(guarded(object)));
        }
        cache.handle(Event::InitDone);
        assert_eq!(cache.names(), ["good"]);
        assert_eq!(cache.unreadable(), 2);
        cache.handle(Event::Apply(guarded(session("bad"))));
        assert_eq!(cache.names(), ["bad", "good"]);
        assert_eq!(cache.unreadable(), 1);
        let metrics = cache.metrics.clone();
        drop(cache);
        assert_eq!(
            metrics
                .unreadable_objects
                .get_or_create(&KindLabel {
                    kind: Kind::SsmSession
                })
                .get(),
            0
        );
    }

    #[test]
    fn nothing_is_decided_by_what_an_unreadable_one_was_before_until_it_is_deleted() {
        let mut cache = Cache::new();
        cache.handle(Event::Init);
        cache.handle(Event::InitApply(guarded(session("orders"))));
        cache.handle(Event::InitDone);
        cache.handle(Event::Apply(guarded(unspecified("orders"))));
        assert!(cache.names().is_empty());

        let mut deleted = unspecified("orders");
        deleted["metadata"]["deletionTimestamp"] = json!(LATE);
        cache.handle(Event::Apply(guarded(deleted.clone())));
        assert_eq!(cache.names(), ["orders"], "it is to be let go");
        cache.handle(Event::Delete(guarded(deleted)));
        assert!(cache.names().is_empty());
        assert_eq!(cache.unreadable(), 0);
    }

    #[test]
    fn one_that_is_deleted_is_let_go_as_what_it_was() {
        let before: SsmSession = serde_json::from_value(session("orders")).expect("it is read");
        let mut deleted = unspecified("orders");
        deleted["metadata"]["deletionTimestamp"] = json!(LATE);
        let reread = reread(&before, guarded(deleted));
        assert_eq!(reread.spec, before.spec);
        assert!(reread.metadata.deletion_timestamp.is_some());
    }

    #[test]
    fn of_a_service_only_our_own_fields_are_kept() {
        let entry = |manager: &str| json!({ "manager": manager, "fieldsV1": { "f:spec": {} } });
        let service =
            json!({ "metadata": { "managedFields": [entry("kubectl"), entry(FIELD_MANAGER)] } });
        let mut service: Service = serde_json::from_value(service).expect("it is read");
        service.slim();
        let managers = service
            .managed_fields()
            .iter()
            .map(|entry| entry.manager.clone());
        assert_eq!(
            managers.collect::<Vec<_>>(),
            [Some(FIELD_MANAGER.to_owned())]
        );
        let mut bare = Service {
            metadata: ObjectMeta::default(),
            ..Service::default()
        };
        bare.slim();
        assert_eq!(bare, Service::default());
    }
}
