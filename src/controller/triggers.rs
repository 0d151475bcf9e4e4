//! Who is to be reconciled for a reason that no watch of its own kind shows.
//!
//! A set and not a queue: what is asked for twice is done once, and there are never more entries than objects.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use futures::Stream;
use futures::stream;
use kube::Resource;
use kube_runtime::reflector::ObjectRef;
use tokio::sync::Notify;

/// The objects of one kind, in one scope of watching, that wait for a reconcile.
#[derive(Debug)]
pub struct Trigger<K: Resource<DynamicType = ()>> {
    namespace: Option<String>,
    waiting: Mutex<HashSet<ObjectRef<K>>>,
    notify: Notify,
}

impl<K: Resource<DynamicType = ()> + 'static> Trigger<K> {
    /// For the objects of one namespace, or of all.
    #[must_use]
    pub fn new(namespace: Option<String>) -> Arc<Self> {
        Arc::new(Self {
            namespace,
            waiting: Mutex::default(),
            notify: Notify::new(),
        })
    }

    /// Asks for a reconcile; an object of another namespace is left to another trigger.
    pub fn ask(&self, object: ObjectRef<K>) {
        if self.namespace.is_some() && self.namespace != object.namespace {
            return;
        }
        self.waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(object);
        self.notify.notify_one();
    }

    fn take(&self) -> Option<ObjectRef<K>> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let next = waiting.iter().next().cloned()?;
        waiting.take(&next)
    }

    /// What was asked for, for ever. One reader only.
    pub fn stream(self: Arc<Self>) -> impl Stream<Item = ObjectRef<K>> + Send {
        stream::unfold(self, |trigger| async move {
            loop {
                if let Some(object) = trigger.take() {
                    return Some((object, trigger));
                }
                trigger.notify.notified().await;
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt as _;

    use super::*;
    use crate::crd::SsmSession;

    fn session(namespace: &str, name: &str) -> ObjectRef<SsmSession> {
        ObjectRef::new(name).within(namespace)
    }

    #[tokio::test]
    async fn what_is_asked_for_twice_is_given_once() {
        let trigger = Trigger::new(None);
        trigger.ask(session("a", "x"));
        trigger.ask(session("a", "x"));
        trigger.ask(session("b", "x"));
        let given: HashSet<_> = Arc::clone(&trigger).stream().take(2).collect().await;
        assert_eq!(given, HashSet::from([session("a", "x"), session("b", "x")]));
        assert!(trigger.take().is_none());
    }

    #[tokio::test]
    async fn an_object_of_another_namespace_is_left_to_others() {
        let trigger = Trigger::new(Some("a".to_owned()));
        trigger.ask(session("b", "x"));
        assert!(trigger.take().is_none());
    }
}
