//! Reads what watches show into the caches, whatever it is.

use std::collections::HashSet;

use kube::Resource;
use kube_runtime::reflector::{ObjectRef, Store};
use kube_runtime::watcher::Event;
use tracing::error;

use super::cached::{Cached, key_of};
use super::metrics::{Kind, KindLabel, Metrics};
use crate::reading::Guarded;

/// Objects that can't be read, of lists that broke off, of which is known that they were said. They are far more than anybody
/// reads about, and bound what is kept while no list is ever complete.
const BROKEN_OFF_MAX: usize = 10_000;

/// Reads the events of one watch for its cache, and says once of each object that can't be read.
pub struct Reader<K: Resource<DynamicType = ()> + Clone + 'static> {
    store: Store<K>,
    kind: Kind,
    metrics: Metrics,
    unreadable: HashSet<ObjectRef<K>>,
    /// The same of a list that has begun, and replaces it once it is complete.
    listing: Option<HashSet<ObjectRef<K>>>,
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
            listing: None,
            counted: 0,
        }
    }

    /// The event for the cache, if it has one.
    pub fn read(&mut self, event: Event<Guarded<K>>) -> Option<Event<K>> {
        let event = match event {
            Event::Init => {
                // One that broke off is begun anew, and has said what it has seen.
                let seen = self.listing.take().unwrap_or_default();
                if self.unreadable.len() < BROKEN_OFF_MAX {
                    self.unreadable.extend(seen);
                }
                self.listing = Some(HashSet::new());
                Some(Event::Init)
            }
            Event::InitDone => {
                if let Some(listing) = self.listing.take() {
                    self.unreadable = listing;
                }
                Some(Event::InitDone)
            }
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
                if self.listing.is_none() {
                    self.unreadable.remove(&key);
                }
                object.slim();
                return Ok(object);
            }
            Err(unreadable) => unreadable,
        };
        let previous = self.store.get(&key);
        let salvaged = K::salvage(&unreadable, previous.as_deref());
        let was_known = self.unreadable.contains(&key);
        let unreadable_now = self.listing.as_mut().unwrap_or(&mut self.unreadable);
        if unreadable_now.insert(key.clone()) && !was_known {
            let (namespace, name) = (key.namespace.as_deref().unwrap_or_default(), &key.name);
            error!(
                kind = ?self.kind, namespace, %name, why = %unreadable.why, decided_about = salvaged.is_some(),
                "an object can't be read as a whole: others are not concerned, what runs for it runs on, and nothing new is \
                 begun but by a part that can be read. Mend what `why` names, or delete it: then all that runs for it ends"
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

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::sync::Arc;

    use kube::ResourceExt as _;
    use kube_runtime::reflector;
    use kube_runtime::reflector::store::Writer;
    use serde_json::json;
    use tracing::subscriber::with_default;

    use super::*;
    use crate::controller::cached::tests::{LATE, guarded, session, unspecified};
    use crate::crd::SsmSession;

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
    fn one_that_can_not_be_read_is_said_once_however_often_a_list_breaks_off() {
        let (mut log, writer) = std::io::pipe().expect("a pipe");
        let subscriber = tracing_subscriber::fmt().with_writer(Arc::new(writer));
        with_default(subscriber.finish(), || {
            let mut cache = Cache::new();
            for _ in 0..3 {
                cache.handle(Event::Init);
                cache.handle(Event::InitApply(guarded(unspecified("bad"))));
            }
            cache.handle(Event::InitDone);
            assert_eq!(cache.unreadable(), 1);
        });
        let mut said = String::new();
        log.read_to_string(&mut said)
            .expect("nobody writes any more");
        assert_eq!(
            said.matches("can't be read as a whole").count(),
            1,
            "{said}"
        );
    }

    #[test]
    fn a_list_that_begins_anew_takes_nothing_back_before_it_is_complete() {
        let mut cache = Cache::new();
        cache.handle(Event::Init);
        cache.handle(Event::InitApply(guarded(unspecified("bad"))));
        cache.handle(Event::InitDone);
        assert_eq!(cache.unreadable(), 1);
        cache.handle(Event::Init);
        assert_eq!(cache.unreadable(), 1);
        cache.handle(Event::InitApply(guarded(session("bad"))));
        assert_eq!(cache.unreadable(), 1);
        cache.handle(Event::InitDone);
        assert_eq!(cache.unreadable(), 0);
    }
}
