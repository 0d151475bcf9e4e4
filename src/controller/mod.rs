//! The control plane's half: what should be, and what to say about it.
//!
//! It decides in functions without `async`; every write to Kubernetes is in an `act` or a `report`, but for the
//! Leases that have run out. It starts no AWS session and moves no byte: losing it closes no stream. With the
//! relays it speaks through `SsmListener` objects only.
//!
//! One controller runs for an installation, and one installation in a namespace: the floor above sees to both, and drops
//! this one where it stands when another may lead.

mod cached;
mod census;
mod concerns;
mod context;
mod definitions;
mod drain;
mod error;
pub mod events;
mod failures;
#[cfg(test)]
mod fake_aws;
#[cfg(test)]
mod fixtures;
mod listener;
pub mod metrics;
mod names;
pub mod options;
mod poll;
mod reader;
mod relays;
mod scopes;
mod session;
mod sweeper;
#[cfg(test)]
mod tests;
mod trace;
mod triggers;
mod trust;
mod turns;
mod watches;
mod wiring;

use std::sync::Arc;

use kube::Client;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::info;

use self::census::census;
use self::drain::Drain;
use self::metrics::Metrics;
pub use self::options::ControllerOptions;
use self::relays::RelaysView;
use self::wiring::{Parts, Watches, until};
use crate::broker::Broker;
use crate::lease::Term;

/// A part of the controller ended though nobody asked for it; the process should end and be started again.
#[derive(Debug, thiserror::Error)]
#[error("the controller's {0} ended by itself; the process must be restarted")]
pub struct Ended(&'static str);

/// What is said of a controller that leads.
#[derive(Clone, Debug)]
pub struct Readiness {
    /// True once the caches of sessions, classes and listeners were filled and the relays were listed; nothing is decided
    /// before.
    pub synced: watch::Sender<bool>,
    /// Which watched namespaces can't be read, and so are not served; empty when all can.
    pub unreadable: watch::Sender<String>,
}

/// Runs the controller of one installation until `shutdown`, then lets running reconciles end. It writes nothing and ends no
/// session when its term is over.
///
/// # Errors
/// When a part of it ends by itself.
pub async fn run(
    client: Client,
    broker: Arc<dyn Broker>,
    options: ControllerOptions,
    metrics: Metrics,
    readiness: Readiness,
    term: Term,
    shutdown: CancellationToken,
) -> Result<(), Ended> {
    let Readiness { synced, unreadable } = readiness;
    let client = term.client(client);
    let watches = Watches::new(&client, &options, &metrics);
    let (relays_sender, relays) = watch::channel(RelaysView::default());
    let (drain_sender, drain) = watch::channel(Drain::default());
    let context = Arc::new(watches.context(Parts {
        client,
        broker,
        options,
        metrics,
        relays,
        drain,
        synced: synced.subscribe(),
        term,
    }));
    // Its state is shown while it runs: it is dropped where another may lead.
    let shown = Arc::downgrade(&context);
    let _showing = context.metrics.show(move || census(&*shown.upgrade()?));
    let mut filled = watches.filled();
    let mut tasks = JoinSet::new();
    watches.spawn(&context, &mut tasks, &shutdown);
    let over_leases = relays::task::run(Arc::clone(&context), relays_sender, drain_sender);
    tasks.spawn(named(
        "watch over Leases",
        until(shutdown.clone(), over_leases),
    ));
    let polls = poll::task::run(Arc::clone(&context));
    tasks.spawn(named("poll", until(shutdown.clone(), polls)));
    let scopes = scopes::run(Arc::clone(&context), unreadable);
    tasks.spawn(named(
        "watch over namespaces",
        until(shutdown.clone(), scopes),
    ));
    let looks = definitions::run(Arc::clone(&context));
    tasks.spawn(named("look at the kinds", until(shutdown.clone(), looks)));
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
            context.metrics.synced.set(1);
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
