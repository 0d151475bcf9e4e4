//! The control plane's half: what should be, and what to say about it.
//!
//! It decides in functions without `async`; every write to Kubernetes is in an `act` or a `report`, but for the
//! Leases of relays that are gone. It starts no AWS session and moves no byte: losing it closes no stream. With the
//! relays it speaks through `SsmListener` objects only.
//!
//! One controller runs for an installation: the floor above sees to that, and drops this one where it stands when
//! another may lead.

pub mod backoff;
mod context;
mod error;
mod events;
#[cfg(test)]
mod fake_aws;
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
#[cfg(test)]
mod tests;
mod triggers;
mod watches;
mod wiring;

use std::sync::Arc;

use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, Client, ResourceExt as _};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::backoff::{delay, jittered};
use self::metrics::Metrics;
pub use self::options::ControllerOptions;
use self::relays::RelaysView;
use self::wiring::{Parts, Watches, until};
use crate::broker::Broker;

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
    let context = Arc::new(watches.context(Parts {
        client,
        broker,
        options,
        metrics,
        namespace_uid: uid,
        relays,
        synced: synced.subscribe(),
    }));
    let mut filled = watches.filled();
    let mut tasks = JoinSet::new();
    watches.spawn(&context, &mut tasks, &shutdown);
    let over_relays = relays::task::run(Arc::clone(&context), relays_sender);
    tasks.spawn(named(
        "watch over relays",
        until(shutdown.clone(), over_relays),
    ));
    let polls = poll::task::run(Arc::clone(&context));
    tasks.spawn(named("poll", until(shutdown.clone(), polls)));
    let forgetting = forget_strangers(Arc::clone(&context));
    tasks.spawn(named("forgetting", until(shutdown.clone(), forgetting)));
    let mut relays = context.relays.clone();
    let all_filled = async {
        for cache in &mut filled {
            if cache.wait_for(|filled| *filled).await.is_err() {
                return false;
            }
        }
        relays.wait_for(|view| view.known).await.is_ok()
    };
    tokio::select! {
        is_filled = all_filled => if is_filled {
            info!("caches filled; deciding begins");
            synced.send_replace(true);
        },
        () = shutdown.cancelled() => {}
        ended = tasks.join_next() => return judge(ended.as_ref(), &shutdown),
    }
    // The first part that ends early takes the whole down; on shutdown each is waited for.
    while let Some(ended) = tasks.join_next().await {
        judge(Some(&ended), &shutdown)?;
    }
    Ok(())
}

/// Forgets what is remembered of sessions that went without us, for ever.
async fn forget_strangers(context: Arc<context::Context>) {
    // Before, a cache that is not filled would make strangers of them all.
    while context.synced().await {
        context.forget_strangers();
        tokio::time::sleep(jittered(context.options.resync_interval)).await;
    }
    std::future::pending::<()>().await;
}

type Finished = Result<&'static str, tokio::task::JoinError>;

fn judge(ended: Option<&Finished>, shutdown: &CancellationToken) -> Result<(), Ended> {
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
    let mut failures = 0;
    loop {
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
        failures += 1;
        tokio::time::sleep(delay(options.backoff_min, options.backoff_max, failures)).await;
    }
}
