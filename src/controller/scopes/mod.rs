//! Which of the watched namespaces can be read. Rights in a namespace go with it, or are taken away by somebody: then what
//! is in that one is not known, and the sessions of every other one are served as ever.
//!
//! It is said in the log, once and then rarely, by a metric, and by `/readyz`, which does not fail for it: a process that
//! was started again would not see more.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, pending, select_all};
use futures::{FutureExt as _, Stream, StreamExt as _};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt as _;
use kube_runtime::watcher;
use tokio::sync::watch::{Receiver, Sender, channel};
use tokio::time::{Instant, timeout_at};
use tracing::{info, warn};

use super::context::Context;
use super::error::words;
use super::watches::Watch;
use crate::crd::SsmSession;

/// Between two times that the log says the same.
const SAID_EVERY: Duration = Duration::from_hours(1);

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

    fn fail(&self, why: &str) {
        let message = format!("what is in {} can't be read: {why}", self.place());
        self.trouble.send_replace(Some(message));
    }

    fn place(&self) -> String {
        let namespace = self.namespace.as_ref();
        namespace.map_or("the namespaces".to_owned(), |namespace| {
            format!("namespace {namespace}")
        })
    }

    /// How the metric calls it.
    fn label(&self) -> &str {
        self.namespace.as_deref().unwrap_or("*")
    }

    /// Waits until what is known may be something else than when this was called.
    fn changed(&self) -> BoxFuture<'static, ()> {
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
}

/// What was said of a scope.
#[derive(Clone, Debug)]
struct Said {
    contents: Contents,
    at: Instant,
}

/// Says which scopes can't be read, and asks for their sessions to be looked at when that changes; for ever. It may be
/// dropped at any point. `unreadable` is told the places, and nothing when there are none.
pub async fn run(context: Arc<Context>, unreadable: Sender<String>) {
    let scopes = &context.scopes;
    let begun = Instant::now();
    let late = begun + context.options.api_timeout;
    let pending = Said {
        contents: Contents::Pending,
        at: begun,
    };
    let mut said = vec![pending; scopes.len()];
    loop {
        // Before it is looked at, so that nothing that happens meanwhile is missed.
        let changes: Vec<_> = scopes.iter().map(|scope| scope.changed()).collect();
        let now = Instant::now();
        for (scope, said) in scopes.iter().zip(&mut said) {
            if now >= late && scope.contents() == Contents::Pending {
                let waited = context.options.api_timeout;
                scope.fail(&format!("no answer within {waited:?}"));
            }
            look(&context, scope, said, now);
        }
        let places = scopes.iter().filter(|scope| scope.is_unreadable());
        let places: Vec<_> = places.map(|scope| scope.place()).collect();
        let text = match places.as_slice() {
            [] => String::new(),
            places => format!(
                "what is in {} can't be read; the log says why",
                places.join(", ")
            ),
        };
        unreadable.send_if_modified(|before| {
            let differs = *before != text;
            *before = text;
            differs
        });
        let wake = if now < late { late } else { now + SAID_EVERY };
        let _ = timeout_at(wake, select_all(changes)).await;
    }
}

impl Scope {
    fn is_unreadable(&self) -> bool {
        match self.contents() {
            Contents::Unreadable(_) => true,
            Contents::Pending | Contents::Known => false,
        }
    }
}

/// Says of one scope what is new.
fn look(context: &Context, scope: &Scope, said: &mut Said, now: Instant) {
    let contents = scope.contents();
    context
        .metrics
        .scope_synced(scope.label(), contents == Contents::Known);
    let again = now >= said.at + SAID_EVERY;
    // The words may come in many forms, such as one for each kind.
    let same = std::mem::discriminant(&contents) == std::mem::discriminant(&said.contents);
    match &contents {
        Contents::Unreadable(message) if !same || again => {
            warn!(
                scope = scope.label(),
                "{message}; its sessions are only let go of, those elsewhere are served \
                as ever. Grant the rights of the chart's Role there, or take the namespace out of watchNamespaces"
            );
            said.at = now;
        }
        Contents::Known if matches!(said.contents, Contents::Unreadable(_)) => {
            info!(scope = scope.label(), "what is there can be read again");
        }
        Contents::Pending | Contents::Known | Contents::Unreadable(_) => {}
    }
    if !same {
        let concerned =
            |session: &SsmSession| scope.covers(&session.namespace().unwrap_or_default());
        for session in context.sessions.filter(concerned) {
            let namespace = session.namespace().unwrap_or_default();
            context.trigger_session(&namespace, &session.name_any());
        }
    }
    said.contents = contents;
}
