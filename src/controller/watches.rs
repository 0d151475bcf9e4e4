//! The caches and the watches that fill them. An error of a watch is logged and counted, never dropped; an object that can't
//! be read keeps no other from being cached.

use std::fmt::Debug;
use std::future::ready;
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use kube::{Api, Client, Resource};
use kube_runtime::reflector::Store;
use kube_runtime::{WatchStreamExt as _, reflector, watcher};
use serde::de::DeserializeOwned;
use tokio::sync::watch::{Receiver, channel};
use tracing::warn;

use super::cached::Cached;
use super::metrics::{Kind, Metrics};
use super::reader::Reader;
use crate::backoff::Backoff;
use crate::reading::{Guarded, PAGE, paced};

/// The first pause after a watch failed; they grow up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(800);

/// The longest pause: nothing that changes is seen meanwhile, once the API server is back.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// What is known before a watch begins: its cache, and the stream that fills it and shows every object that changed.
pub struct Watch<K: Resource<DynamicType = ()> + Clone + 'static> {
    /// Reads what the stream has shown.
    pub store: Store<K>,
    /// True once the cache holds what the first list gave.
    pub filled: Receiver<bool>,
    /// Must be driven; it backs off after errors and never ends.
    pub changes: futures::stream::BoxStream<'static, Result<K, watcher::Error>>,
}

/// Watches the objects of one API.
#[must_use]
pub fn watch<K>(
    api: Api<Guarded<K>>,
    config: watcher::Config,
    kind: Kind,
    metrics: &Metrics,
) -> Watch<K>
where
    K: Cached
        + Resource<DynamicType = ()>
        + Clone
        + DeserializeOwned
        + Debug
        + Send
        + Sync
        + 'static,
{
    let (store, writer) = reflector::store();
    let mut reader = Reader::new(store.clone(), kind, metrics);
    let metrics = metrics.clone();
    // Not the store's own readiness: that wakes one waiter only, and a Controller waits for it.
    let (filled, is_filled) = channel(false);
    let events = watcher(api, config.page_size(PAGE)).boxed();
    let changes = paced(events, Backoff::new(PAUSE_MIN, PAUSE_MAX))
        .filter_map(move |event| ready(event.map(|event| reader.read(event)).transpose()))
        .reflect(writer)
        .inspect(move |event| {
            if matches!(event, Ok(watcher::Event::InitDone)) {
                filled.send_replace(true);
            }
        })
        .touched_objects()
        .inspect(move |change| {
            if let Err(error) = change {
                metrics.watch_failed(kind);
                warn!(?kind, %error, "watch failed; what was cached stays, watched again after back-off");
            }
        })
        .boxed();
    Watch {
        store,
        filled: is_filled,
        changes,
    }
}

/// The API of the given namespace, or of all.
#[must_use]
pub fn api<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

/// Drives a watch whose changes only ask others to look again.
pub async fn drive<K: Debug>(
    changes: impl Stream<Item = Result<K, watcher::Error>> + Send,
    on_change: impl Fn(&K) + Send,
) {
    let mut changes = std::pin::pin!(changes);
    while let Some(change) = changes.next().await {
        // Errors were counted where the watch was made.
        if let Ok(object) = change {
            on_change(&object);
        }
    }
}
