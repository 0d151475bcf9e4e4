//! What watches what: caches and their streams, and the two controllers.

use std::future::{pending, ready};
use std::sync::{Arc, Mutex};

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{Api, Client, Resource, ResourceExt as _};
use kube_runtime::controller::{Action, Config, Controller, Error as QueueError};
use kube_runtime::events::{Recorder, Reporter};
use kube_runtime::reflector::{ObjectRef, Store};
use kube_runtime::watcher;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::concerns::{ask_for_class, ask_for_service, ask_owners};
use super::context::{Context, Stores};
use super::drain::Drain;
use super::error::Error;
use super::failures::Failures;
use super::metrics::{Kind, Metrics};
use super::names::{self, FIELD_MANAGER, MANAGED_BY_LABEL, SLICE_MANAGED_BY_LABEL};
use super::options::ControllerOptions;
use super::poll::Polls;
use super::relays::RelaysView;
use super::triggers::Trigger;
use super::turns::Turns;
use super::watches::{Watch, api, drive, watch};
use super::{listener, named, scopes, session};
use crate::broker::Broker;
use crate::crd::{MANAGED_BY, SsmListener, SsmSession, SsmSessionClass};
use crate::lease::Term;

/// All caches with the streams that fill them, one of each kind for each scope of watching.
pub struct Watches {
    scopes: Vec<Option<String>>,
    sessions: Vec<Watch<SsmSession>>,
    services: Vec<Watch<Service>>,
    slices: Vec<Watch<EndpointSlice>>,
    classes: Watch<SsmSessionClass>,
    listeners: Watch<SsmListener>,
}

/// What a context is made of, besides the caches.
pub struct Parts {
    /// For the API server.
    pub client: Client,
    /// For AWS.
    pub broker: Arc<dyn Broker>,
    /// How to behave.
    pub options: ControllerOptions,
    /// What is counted.
    pub metrics: Metrics,
    /// What is known of relays.
    pub relays: watch::Receiver<RelaysView>,
    /// Whether the installation is asked to drain.
    pub drain: watch::Receiver<Drain>,
    /// True once all was read that is not some namespace's own.
    pub synced: watch::Receiver<bool>,
    /// For how long it may act.
    pub term: Term,
}

impl Watches {
    /// Prepares all watches; none is begun before its stream is driven.
    #[must_use]
    pub fn new(client: &Client, options: &ControllerOptions, metrics: &Metrics) -> Self {
        let mut scopes: Vec<Option<String>> =
            options.watch_namespaces.iter().cloned().map(Some).collect();
        if scopes.is_empty() {
            scopes.push(None);
        }
        scopes.sort();
        scopes.dedup();
        let all = watcher::Config::default;
        let ours = |label: &str| all().labels(&format!("{label}={MANAGED_BY}"));
        let each = scopes.iter().map(Option::as_deref);
        Self {
            sessions: each
                .clone()
                .map(|scope| watch(api(client, scope), all(), Kind::SsmSession, metrics))
                .collect(),
            services: each
                .clone()
                .map(|scope| {
                    watch(
                        api(client, scope),
                        ours(MANAGED_BY_LABEL),
                        Kind::Service,
                        metrics,
                    )
                })
                .collect(),
            slices: each
                .map(|scope| {
                    let config = ours(SLICE_MANAGED_BY_LABEL);
                    watch(api(client, scope), config, Kind::EndpointSlice, metrics)
                })
                .collect(),
            classes: watch(
                Api::all(client.clone()),
                all(),
                Kind::SsmSessionClass,
                metrics,
            ),
            listeners: watch(
                Api::namespaced(client.clone(), &options.namespace),
                all(),
                Kind::SsmListener,
                metrics,
            ),
            scopes,
        }
    }

    /// Becomes true once it was filled, for each cache of what every decision needs. What only the sessions of one
    /// namespace need is that scope's: the rights to it may be gone with the namespace.
    #[must_use]
    pub fn filled(&self) -> Vec<watch::Receiver<bool>> {
        let Self {
            scopes: _,
            sessions,
            services: _,
            slices: _,
            classes,
            listeners,
        } = self;
        let mut filled = vec![classes.filled.clone(), listeners.filled.clone()];
        filled.extend(sessions.iter().map(|watch| watch.filled.clone()));
        filled
    }

    /// What the reconcilers share, over these caches.
    pub fn context(&self, parts: Parts) -> Context {
        let Parts {
            client,
            broker,
            options,
            metrics,
            relays,
            drain,
            synced,
            term,
        } = parts;
        let reporter = Reporter {
            controller: FIELD_MANAGER.to_owned(),
            instance: None,
        };
        let backoff = || Failures::new(options.backoff_min, options.backoff_max);
        Context {
            recorder: Recorder::new(client.clone(), reporter.clone()),
            reporter,
            client,
            broker,
            metrics,
            sessions: stores(&self.sessions),
            services: stores(&self.services),
            slices: stores(&self.slices),
            scopes: scopes::scope::of(&self.scopes, &self.services, &self.slices),
            classes: self.classes.store.clone(),
            listeners: self.listeners.store.clone(),
            relays,
            drain,
            polls: Polls::default(),
            synced,
            term,
            session_triggers: self.scopes.iter().cloned().map(Trigger::new).collect(),
            listener_trigger: Trigger::new(None),
            session_backoff: backoff(),
            listener_backoff: backoff(),
            memories: Mutex::default(),
            terminated: Mutex::default(),
            turns: Turns::new(options.concurrency),
            reserved: Mutex::default(),
            deletions: Mutex::default(),
            strangers: Mutex::default(),
            options,
        }
    }

    /// Starts the two controllers, and the watches of everything else that concerns them.
    pub fn spawn(
        self,
        context: &Arc<Context>,
        tasks: &mut JoinSet<&'static str>,
        shutdown: &CancellationToken,
    ) {
        let Self {
            scopes: _,
            sessions,
            services,
            slices,
            classes,
            listeners,
        } = self;
        let config = || Config::default().concurrency(context.options.concurrency);
        for (watch, trigger) in sessions.into_iter().zip(&context.session_triggers) {
            let Watch {
                store,
                filled: _,
                changes,
            } = watch;
            // Errors were logged and counted where the watch was made, and it backs off by itself.
            let changes = changes.filter(|change| ready(change.is_ok()));
            let controller = Controller::for_stream(changes, store)
                .with_config(config())
                .reconcile_on(Arc::clone(trigger).stream())
                .graceful_shutdown_on(shutdown.clone().cancelled_owned())
                .run(
                    session::reconcile,
                    |session, error, context| {
                        let backoff = &context.session_backoff;
                        on_error(session.as_ref(), Kind::SsmSession, error, backoff)
                    },
                    Arc::clone(context),
                );
            let notes = Arc::clone(context);
            let each = move |result| {
                note(result, &notes.session_backoff);
                ready(())
            };
            let running = until_ended(
                context.synced.clone(),
                shutdown.clone(),
                controller.for_each(each),
            );
            tasks.spawn(named("controller of SsmSession", running));
        }
        let asks = Arc::clone(context);
        let changes = listeners
            .changes
            .filter(|change| ready(change.is_ok()))
            .inspect(move |change| {
                if let Ok(listener) = change {
                    let reference = &listener.spec.session_ref;
                    asks.trigger_session(&reference.namespace, &reference.name);
                }
            });
        let controller = Controller::for_stream(changes, listeners.store)
            .with_config(config())
            .reconcile_on(Arc::clone(&context.listener_trigger).stream())
            .graceful_shutdown_on(shutdown.clone().cancelled_owned())
            .run(
                listener::reconcile,
                |listener, error, context| {
                    let backoff = &context.listener_backoff;
                    on_error(listener.as_ref(), Kind::SsmListener, error, backoff)
                },
                Arc::clone(context),
            );
        let notes = Arc::clone(context);
        let each = move |result| {
            note(result, &notes.listener_backoff);
            ready(())
        };
        let running = until_ended(
            context.synced.clone(),
            shutdown.clone(),
            controller.for_each(each),
        );
        tasks.spawn(named("controller of SsmListener", running));

        for (watch, scope) in services.into_iter().zip(&context.scopes) {
            let asks = Arc::clone(context);
            let driven = drive(scope.hears(watch.changes), move |service| {
                ask_for_service(&asks, service);
            });
            tasks.spawn(named("watch of Services", until(shutdown.clone(), driven)));
        }
        for (watch, scope) in slices.into_iter().zip(&context.scopes) {
            let asks = Arc::clone(context);
            let driven = drive(scope.hears(watch.changes), move |slice| {
                ask_owners(&asks, slice);
            });
            tasks.spawn(named(
                "watch of EndpointSlices",
                until(shutdown.clone(), driven),
            ));
        }
        let asks = Arc::clone(context);
        let driven = drive(classes.changes, move |class| ask_for_class(&asks, class));
        tasks.spawn(named("watch of classes", until(shutdown.clone(), driven)));
    }
}

fn stores<K: Resource<DynamicType = ()> + Clone + 'static>(watches: &[Watch<K>]) -> Stores<K> {
    Stores(
        watches
            .iter()
            .map(|watch| watch.store.clone())
            .collect::<Vec<Store<K>>>(),
    )
}

/// Runs a task that has no end of its own.
pub async fn until(shutdown: CancellationToken, task: impl Future<Output = ()>) {
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = task => {}
    }
}

/// Runs a controller, which ends by itself once its running reconciles have ended. Before the caches are filled it would
/// wait for them, and no reconcile has begun anything: then it is dropped.
async fn until_ended(
    synced: watch::Receiver<bool>,
    shutdown: CancellationToken,
    controller: impl Future<Output = ()>,
) {
    let unsynced = async {
        shutdown.cancelled().await;
        if *synced.borrow() {
            pending::<()>().await;
        }
    };
    tokio::select! {
        () = unsynced => {}
        () = controller => {}
    }
}

fn on_error<K: Resource<DynamicType = ()>>(
    object: &K,
    kind: Kind,
    error: &Error,
    backoff: &Failures,
) -> Action {
    let (name, namespace) = (object.name_any(), object.namespace().unwrap_or_default());
    if error.is_conflict() {
        // The newer object is on its way and asks for a reconcile by itself; this is for when it does not.
        debug!(?kind, %namespace, %name, %error, "overtaken by another write");
        return Action::requeue(backoff.failed(&names::key(object)));
    }
    warn!(?kind, %namespace, %name, %error, request_id = error.request_id(), "reconcile failed");
    Action::requeue(backoff.failed(&names::key(object)))
}

/// What is left to say of a reconcile: its own errors went through the error policy.
fn note<K: Resource<DynamicType = ()>>(
    result: Result<(ObjectRef<K>, Action), QueueError<Error, watcher::Error>>,
    backoff: &Failures,
) {
    match result {
        Ok(_) | Err(QueueError::ReconcilerFailed(..)) => {}
        Err(QueueError::ObjectNotFound(object)) => {
            backoff.succeeded(&names::key_of(object.namespace.as_deref(), &object.name));
        }
        Err(QueueError::QueueError(error)) => warn!(%error, "a watch failed"),
        Err(QueueError::RunnerError(error)) => warn!(%error, "the runner of reconciles failed"),
    }
}
