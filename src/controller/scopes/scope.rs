//! One namespace that is watched, or all of them: what is known of the Services and slices there.

use std::sync::Arc;

use futures::future::{BoxFuture, pending};
use futures::{FutureExt as _, Stream, StreamExt as _};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube_runtime::watcher;
use tokio::sync::watch::{Receiver, Sender, channel};

use crate::controller::error::words;
use crate::controller::watches::Watch;

/// What is known of the Services and slices of a scope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Contents {
    /// They are being read for the first time.
    Pending,
    /// The caches hold them.
    Known,
    /// They can't be read, and why.
    Unreadable(String),
}

/// One namespace that is watched, or all of them.
#[derive(Debug)]
pub struct Scope {
    namespace: Option<String>,
    filled: [Receiver<bool>; 2],
    /// Why it can't be read, as a watch said last.
    trouble: Sender<Option<String>>,
}

/// Why a watch failed, in the API server's own words where it answered.
fn why(error: &watcher::Error) -> String {
    match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => words(error),
        watcher::Error::WatchError(status) => status.message.clone(),
        watcher::Error::NoResourceVersion => error.to_string(),
    }
}

/// One for each of these namespaces, in their order.
#[must_use]
pub fn of(
    namespaces: &[Option<String>],
    services: &[Watch<Service>],
    slices: &[Watch<EndpointSlice>],
) -> Vec<Arc<Scope>> {
    let filled = services.iter().zip(slices);
    let filled = filled.map(|(services, slices)| [services.filled.clone(), slices.filled.clone()]);
    let scopes = namespaces.iter().cloned().zip(filled);
    scopes
        .map(|(namespace, filled)| Scope::new(namespace, filled))
        .collect()
}

impl Scope {
    /// Of these caches, each of which says whether it was filled.
    #[must_use]
    pub fn new(namespace: Option<String>, filled: [Receiver<bool>; 2]) -> Arc<Self> {
        Arc::new(Self {
            namespace,
            filled,
            trouble: channel(None).0,
        })
    }

    /// Whether this namespace is in it.
    #[must_use]
    pub fn covers(&self, namespace: &str) -> bool {
        self.namespace.as_deref().is_none_or(|of| of == namespace)
    }

    /// What is known now. What was read once stays known: a watch that fails later leaves its cache as it is.
    #[must_use]
    pub fn contents(&self) -> Contents {
        if self.filled.iter().all(|filled| *filled.borrow()) {
            return Contents::Known;
        }
        let trouble = self.trouble.borrow();
        trouble
            .clone()
            .map_or(Contents::Pending, Contents::Unreadable)
    }

    /// The same stream of a watch, of whose errors the scope hears.
    pub fn hears<K, S>(
        self: &Arc<Self>,
        changes: S,
    ) -> impl Stream<Item = Result<K, watcher::Error>> + Send + use<K, S>
    where
        S: Stream<Item = Result<K, watcher::Error>> + Send,
    {
        let scope = Arc::clone(self);
        changes.inspect(move |change| {
            if let Err(error) = change {
                scope.fail(&why(error));
            }
        })
    }

    /// It can't be read, for this reason.
    pub(super) fn fail(&self, why: &str) {
        let message = format!("what is in {} can't be read: {why}", self.place());
        self.trouble.send_replace(Some(message));
    }

    /// How people call it.
    pub(super) fn place(&self) -> String {
        let namespace = self.namespace.as_ref();
        namespace.map_or("the namespaces".to_owned(), |namespace| {
            format!("namespace {namespace}")
        })
    }

    /// How the metric calls it.
    pub(super) fn label(&self) -> &str {
        self.namespace.as_deref().unwrap_or("*")
    }

    /// Waits until what is known may be something else than when this was called.
    pub(super) fn changed(&self) -> BoxFuture<'static, ()> {
        let [mut services, mut slices] = self.filled.clone();
        services.mark_unchanged();
        slices.mark_unchanged();
        let mut trouble = self.trouble.subscribe();
        async move {
            let change = tokio::select! {
                change = services.changed() => change,
                change = slices.changed() => change,
                change = trouble.changed() => change,
            };
            // A cache whose stream is gone says nothing any more: then the controller ends.
            if change.is_err() {
                pending::<()>().await;
            }
        }
        .boxed()
    }

    /// Whether it is known that it can't be read.
    pub(super) fn is_unreadable(&self) -> bool {
        match self.contents() {
            Contents::Unreadable(_) => true,
            Contents::Pending | Contents::Known => false,
        }
    }
}
