//! The control plane's half: what should be, and what to say about it.
//!
//! It decides in functions without `async`; every write to Kubernetes is in an `act` or a `report`, but for the
//! Leases of relays that are gone. It starts no AWS session and moves no byte: losing it closes no stream. With the
//! relays it speaks through `SsmListener` objects only.
//!
//! One controller runs for an installation: nothing here elects a leader.

pub mod backoff;
mod context;
mod error;
mod events;
#[cfg(test)]
mod fixtures;
mod listener;
pub mod metrics;
mod names;
pub mod options;
mod poll;
mod relays;
mod session;
mod sweeper;
mod triggers;
mod watches;

use std::collections::HashMap;
use std::fmt::Debug;
use std::future::ready;
use std::sync::{Arc, Mutex};

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{Api, Client, Resource, ResourceExt as _};
use kube_runtime::controller::{Action, Config, Controller, Error as QueueError};
use kube_runtime::events::{Recorder, Reporter};
use kube_runtime::reflector::{ObjectRef, Store};
use kube_runtime::watcher;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use self::backoff::{Backoff, delay, jittered};
use self::context::{Context, Stores};
use self::error::Error;
use self::metrics::{Kind, Metrics, Outcome};
use self::names::{FIELD_MANAGER, MANAGED_BY_LABEL, SLICE_MANAGED_BY_LABEL};
pub use self::options::ControllerOptions;
use self::poll::Polls;
use self::relays::RelaysView;
use self::triggers::Trigger;
use self::watches::{Watch, api, drive, filled, watch};
use crate::broker::Broker;
use crate::crd::{MANAGED_BY, SsmListener, SsmSession, SsmSessionClass};

/// A part of the controller ended though nobody asked for it; the process should end and be started again.
#[derive(Debug, thiserror::Error)]
#[error("the controller's {0} ended by itself; the process must be restarted")]
pub struct Ended(&'static str);

/// Runs the controller of one installation until `shutdown`, then lets running reconciles end.
///
/// `synced` becomes true once every cache was filled and the relays were listed; nothing is decided before.
///
/// # Errors
/// When a part of it ends by itself.
pub async fn run(
    client: Client,
    broker: Arc<dyn Broker>,
    options: ControllerOptions,
    metrics: Metrics,
    synced: watch::Sender<bool>,
    shutdown: CancellationToken,
) -> Result<(), Ended> {
    let uid = tokio::select! {
        () = shutdown.cancelled() => return Ok(()),
        uid = namespace_uid(&client, &options) => uid,
    };
    let watches = Watches::new(&client, &options, &metrics);
    let (relays_sender, relays) = watch::channel(RelaysView::default());
    let context = Arc::new(watches.context(client, broker, options, metrics, uid, relays, &synced));
    let mut tasks = JoinSet::new();
    watches.spawn(&context, &mut tasks, &shutdown);
    let relays = relays::task::run(Arc::clone(&context), relays_sender, shutdown.clone());
    tasks.spawn(named("watch over relays", relays));
    tasks.spawn(named(
        "poll",
        poll::task::run(Arc::clone(&context), shutdown.clone()),
    ));
    let mut relays = context.relays.clone();
    let all_filled = async {
        filled(&context.sessions.0).await
            && filled(&context.services.0).await
            && filled(&context.slices.0).await
            && filled(std::slice::from_ref(&context.listeners)).await
            && filled(std::slice::from_ref(&context.classes)).await
            && relays.wait_for(|view| view.known).await.is_ok()
    };
    tokio::select! {
        filled = all_filled => if filled {
            info!("caches filled; deciding begins");
            synced.send_replace(true);
        },
        () = shutdown.cancelled() => {}
        ended = tasks.join_next() => return judge(ended, &shutdown),
    }
    // The first part that ends early takes the whole down; on shutdown each is waited for.
    while let Some(ended) = tasks.join_next().await {
        judge(Some(ended), &shutdown)?;
    }
    Ok(())
}

type Finished = Option<Result<&'static str, tokio::task::JoinError>>;

fn judge(ended: Finished, shutdown: &CancellationToken) -> Result<(), Ended> {
    if shutdown.is_cancelled() {
        return Ok(());
    }
    match ended {
        Some(Ok(name)) => Err(Ended(name)),
        Some(Err(_)) | None => Err(Ended("task")),
    }
}

async fn named(name: &'static str, task: impl Future<Output = ()>) -> &'static str {
    task.await;
    name
}

/// UID of the operator's namespace: asked for until it is answered, since nothing can begin without it.
async fn namespace_uid(client: &Client, options: &ControllerOptions) -> String {
    let api: Api<Namespace> = Api::all(client.clone());
    for failures in 1.. {
        let why = match timeout(options.api_timeout, api.get(&options.namespace)).await {
            Ok(Ok(namespace)) => match namespace.uid() {
                Some(uid) => return uid,
                None => "it has no UID".to_owned(),
            },
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer".to_owned(),
        };
        let namespace = &options.namespace;
        warn!(%namespace, %why, "the operator's namespace can't be read; tried again");
        tokio::time::sleep(delay(options.backoff_min, options.backoff_max, failures)).await;
    }
    unreachable!("an endless range ends only by return")
}

/// All caches with the streams that fill them, one of each kind for each scope of watching.
struct Watches {
    scopes: Vec<Option<String>>,
    sessions: Vec<Watch<SsmSession>>,
    services: Vec<Watch<Service>>,
    slices: Vec<Watch<EndpointSlice>>,
    classes: Watch<SsmSessionClass>,
    listeners: Watch<SsmListener>,
}

impl Watches {
    fn new(client: &Client, options: &ControllerOptions, metrics: &Metrics) -> Self {
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

    fn context(
        &self,
        client: Client,
        broker: Arc<dyn Broker>,
        options: ControllerOptions,
        metrics: Metrics,
        namespace_uid: String,
        relays: watch::Receiver<RelaysView>,
        synced: &watch::Sender<bool>,
    ) -> Context {
        let reporter = Reporter {
            controller: FIELD_MANAGER.to_owned(),
            instance: None,
        };
        let backoff = || Backoff::new(options.backoff_min, options.backoff_max);
        Context {
            recorder: Recorder::new(client.clone(), reporter),
            client,
            broker,
            metrics,
            namespace_uid,
            sessions: stores(&self.sessions),
            services: stores(&self.services),
            slices: stores(&self.slices),
            classes: self.classes.store.clone(),
            listeners: self.listeners.store.clone(),
            relays,
            polls: Polls::default(),
            synced: synced.subscribe(),
            session_triggers: self.scopes.iter().cloned().map(Trigger::new).collect(),
            listener_trigger: Trigger::new(None),
            session_backoff: backoff(),
            listener_backoff: backoff(),
            memories: Mutex::default(),
            terminated: Mutex::new(HashMap::new()),
            reserved: Mutex::default(),
            options,
        }
    }

    /// Starts the two controllers, and the watches of everything else that concerns them.
    fn spawn(
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
            let Watch { store, changes } = watch;
            // Errors were logged and counted where the watch was made, and it backs off by itself.
            let changes = changes.filter(|change| ready(change.is_ok()));
            let controller = Controller::for_stream(changes, store)
                .with_config(config())
                .reconcile_on(Arc::clone(trigger).stream())
                .graceful_shutdown_on(shutdown.clone().cancelled_owned())
                .run(session::reconcile, on_session_error, Arc::clone(context));
            let context = Arc::clone(context);
            let each = move |result| ready(note(result, &context.session_backoff));
            tasks.spawn(named("controller of SsmSession", controller.for_each(each)));
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
            .run(listener::reconcile, on_listener_error, Arc::clone(context));
        let notes = Arc::clone(context);
        let each = move |result| ready(note(result, &notes.listener_backoff));
        tasks.spawn(named(
            "controller of SsmListener",
            controller.for_each(each),
        ));

        for watch in services {
            let asks = Arc::clone(context);
            let driven = drive(watch.changes, move |service| {
                ask_for_service(&asks, service)
            });
            tasks.spawn(named("watch of Services", until(shutdown.clone(), driven)));
        }
        for watch in slices {
            let asks = Arc::clone(context);
            let driven = drive(watch.changes, move |slice| ask_owners(&asks, slice));
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

async fn until(shutdown: CancellationToken, task: impl Future<Output = ()>) {
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = task => {}
    }
}

/// Asks the sessions that own an object to look again.
fn ask_owners<K: Resource<DynamicType = ()>>(context: &Context, object: &K) {
    let namespace = object.namespace().unwrap_or_default();
    for owner in object.owner_references() {
        if owner.kind == SsmSession::kind(&()) {
            context.trigger_session(&namespace, &owner.name);
        }
    }
}

/// Asks the session that owns a Service, and those that wait for its name.
fn ask_for_service(context: &Context, service: &Service) {
    ask_owners(context, service);
    let (namespace, name) = (service.namespace(), service.name_any());
    let waits = |session: &SsmSession| {
        session.namespace() == namespace && session::service_name(session) == name
    };
    for session in context.sessions.filter(waits) {
        context.trigger_session(
            &session.namespace().unwrap_or_default(),
            &session.name_any(),
        );
    }
}

/// Asks the sessions that name a class, and those that name none, since it may be the default.
fn ask_for_class(context: &Context, class: &SsmSessionClass) {
    let name = class.name_any();
    let concerns = |session: &SsmSession| {
        session
            .spec
            .class_name
            .as_ref()
            .is_none_or(|of| *of == name)
    };
    for session in context.sessions.filter(concerns) {
        context.trigger_session(
            &session.namespace().unwrap_or_default(),
            &session.name_any(),
        );
    }
}

fn on_session_error(session: Arc<SsmSession>, error: &Error, context: Arc<Context>) -> Action {
    on_error(
        session.as_ref(),
        Kind::SsmSession,
        error,
        &context,
        &context.session_backoff,
    )
}

fn on_listener_error(listener: Arc<SsmListener>, error: &Error, context: Arc<Context>) -> Action {
    on_error(
        listener.as_ref(),
        Kind::SsmListener,
        error,
        &context,
        &context.listener_backoff,
    )
}

fn on_error<K: Resource<DynamicType = ()>>(
    object: &K,
    kind: Kind,
    error: &Error,
    context: &Context,
    backoff: &Backoff,
) -> Action {
    let (name, namespace) = (object.name_any(), object.namespace().unwrap_or_default());
    if error.is_conflict() {
        // The newer object is on its way and asks for a reconcile by itself; this is for when it does not.
        context.metrics.reconciled(kind, Outcome::Conflict);
        debug!(?kind, %namespace, %name, %error, "overtaken by another write");
        return Action::requeue(jittered(context.options.backoff_min));
    }
    context.metrics.reconciled(kind, Outcome::Failure);
    warn!(?kind, %namespace, %name, %error, "reconcile failed");
    Action::requeue(backoff.failed(&names::key(object)))
}

/// What is left to say of a reconcile: its own errors went through the error policy.
fn note<K: Resource<DynamicType = ()>>(
    result: Result<(ObjectRef<K>, Action), QueueError<Error, watcher::Error>>,
    backoff: &Backoff,
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
