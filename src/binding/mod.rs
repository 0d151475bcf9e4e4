//! The Kubernetes half of a relay: the `SsmListener`s bound to it, their state back, and its Lease.
//!
//! It promises: a relay that loses the API server serves on; a listener that is moved or deleted is stopped as soon
//! as the watch shows it; a status is written only while the listener is ours; and once another process runs under
//! the relay's name, this one writes nothing more and stops.

pub mod convert;
pub mod lease;
pub mod listeners;
pub mod metrics;
pub mod record;
pub mod status;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client};
use kube_runtime::watcher::{self, Event, watcher};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

pub use lease::LeaseError;
pub use metrics::BindingMetrics;

use crate::backoff::Backoff;
use crate::crd::{SsmListener, relay_label_value};
use crate::reading::{Guarded, PAGE, paced};
use crate::relay::{EndReason, Inherited, ListenerId, ListenerSpec, Recorder, Relay};
use crate::words::with_causes;
use lease::{Claim, RelayLease};
use listeners::Listeners;
use record::Desk;
use status::Writer;

/// How often listeners that are being stopped are looked at: the relay does not say when it has let go of one.
const SETTLE_EVERY: Duration = Duration::from_millis(250);

/// The first pause after the watch failed; they grow up to [`WATCH_PAUSE_MAX`].
const WATCH_PAUSE_MIN: Duration = Duration::from_millis(400);

/// The longest pause: whatever was moved while the API server was away is let go of soon after it is back.
const WATCH_PAUSE_MAX: Duration = Duration::from_secs(5);

/// Settings of the binding.
#[derive(Clone, Debug)]
pub struct BindingOptions {
    /// The operator's own namespace: listeners and Leases are in it.
    pub namespace: String,
    /// UID of that namespace: the installation's part of the marker.
    pub namespace_uid: String,
    /// Name of the relay, the same across restarts.
    pub relay_name: String,
    /// This run of its process.
    pub incarnation: String,
    /// Which installation the relay belongs to.
    pub controller_name: String,
    /// Addresses by which pods reach the relay, one at most of each family.
    pub advertise_addresses: Vec<IpAddr>,
    /// How long the Lease holds without renewal; after that the controller moves the listeners.
    pub lease_duration: Duration,
    /// How often it is renewed, and how long a call for it may take.
    pub lease_renew: Duration,
    /// How many listeners the relay takes.
    pub capacity: usize,
    /// How long the record of one report may take, all tries together.
    pub record_deadline: Duration,
    /// How long ending the sessions may take when the process ends.
    pub shutdown_deadline: Duration,
}

/// What becomes true while the binding starts; for probes.
#[derive(Debug)]
pub struct Readiness {
    /// The relay's Lease is held.
    pub lease: watch::Sender<bool>,
    /// The listeners of this relay have been listed once.
    pub listed: watch::Sender<bool>,
}

/// Why the binding ended though nobody asked for it.
#[derive(Debug, thiserror::Error)]
pub enum BindingError {
    /// The relay's Lease can't be held.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// The watch gave up, which it never does by itself.
    #[error("the watch of listeners ended")]
    WatchEnded,
}

/// What the binding asks of the relay below it.
pub trait DataPlane: Send + Sync {
    /// [`Relay::ensure`].
    fn ensure(
        &self,
        id: &ListenerId,
        spec: ListenerSpec,
        inherited: Inherited,
        recorder: Arc<dyn Recorder>,
    );
    /// [`Relay::stop`].
    fn stop(&self, id: &ListenerId, reason: EndReason);
    /// [`Relay::listeners`].
    fn listeners(&self) -> Vec<ListenerId>;
    /// [`Relay::shutdown`].
    fn shutdown(&self, deadline: Duration) -> BoxFuture<'_, ()>;
}

impl DataPlane for Relay {
    fn ensure(
        &self,
        id: &ListenerId,
        spec: ListenerSpec,
        inherited: Inherited,
        recorder: Arc<dyn Recorder>,
    ) {
        Self::ensure(self, id, spec, inherited, recorder);
    }

    fn stop(&self, id: &ListenerId, reason: EndReason) {
        Self::stop(self, id, reason);
    }

    fn listeners(&self) -> Vec<ListenerId> {
        Self::listeners(self)
    }

    fn shutdown(&self, deadline: Duration) -> BoxFuture<'_, ()> {
        Self::shutdown(self, deadline).boxed()
    }
}

/// Binds `relay` to its listeners until `shutdown` is cancelled; then ends its sessions, and releases the Lease last.
///
/// # Errors
/// When another process took the relay's name, or the name's Lease is not a relay's. The sessions are ended then too.
pub async fn run<D: DataPlane + Clone>(
    client: Client,
    relay: D,
    options: BindingOptions,
    shutdown: CancellationToken,
    readiness: Readiness,
    metrics: BindingMetrics,
) -> Result<(), BindingError> {
    let claim = Claim {
        relay: options.relay_name.clone(),
        incarnation: options.incarnation.clone(),
        label: relay_label_value(&options.controller_name),
        duration: options.lease_duration,
        capacity: options.capacity,
    };
    let leases: Api<Lease> = Api::namespaced(client.clone(), &options.namespace);
    let mut lease = RelayLease::new(leases, claim, options.lease_renew, metrics.clone());
    if !lease.acquire(&shutdown).await? {
        return Ok(());
    }
    readiness.lease.send_replace(true);

    let desk = desk_of(&options, metrics);
    let api: Api<Guarded<SsmListener>> = Api::namespaced(client, &options.namespace);
    let uid = options.namespace_uid.clone();
    let mut listeners = Listeners::new(api.clone(), desk.clone(), uid, relay.clone());
    // The Lease outlives the watch: while sessions are being ended the relay is still alive.
    let stop_lease = CancellationToken::new();
    let ended = {
        let mut kept = pin!(lease.keep(&stop_lease));
        let watched = tokio::select! {
            kept = &mut kept => kept.map_err(BindingError::from),
            watched = watch_listeners(&mut listeners, api, &desk, &readiness.listed, &shutdown) => watched,
        };
        if let Err(error) = &watched {
            error!(relay = options.relay_name, %error, "the relay stops serving");
        }
        readiness.listed.send_replace(false);
        let deadline = options.shutdown_deadline;
        match watched {
            Err(BindingError::Lease(error)) => {
                // The name belongs to another run: nothing may be written over what that one writes.
                desk.fenced.cancel();
                relay.shutdown(deadline).await;
                Err(error.into())
            }
            Ok(()) | Err(BindingError::WatchEnded) => {
                end_sessions(&relay, deadline, kept, &desk.fenced).await;
                watched
            }
        }
    };
    readiness.lease.send_replace(false);
    if !desk.fenced.is_cancelled() {
        lease.release().await;
    }
    ended
}

fn desk_of(options: &BindingOptions, metrics: BindingMetrics) -> Desk {
    Desk {
        writer: Writer {
            relay: options.relay_name.clone(),
            incarnation: options.incarnation.clone(),
            addresses: options.advertise_addresses.clone(),
        },
        fenced: CancellationToken::new(),
        deadline: options.record_deadline,
        metrics,
    }
}

/// Ends all sessions while the Lease is kept; without it they are ended too, but nothing is written any more.
async fn end_sessions<D: DataPlane>(
    relay: &D,
    deadline: Duration,
    kept: impl Future<Output = Result<(), LeaseError>>,
    fenced: &CancellationToken,
) {
    info!(
        listeners = relay.listeners().len(),
        ?deadline,
        "ending all sessions"
    );
    let mut ending = relay.shutdown(deadline);
    let kept = tokio::select! {
        () = &mut ending => return,
        kept = kept => kept,
    };
    if let Err(error) = kept {
        error!(%error, "the Lease was lost while sessions are being ended");
        fenced.cancel();
    }
    ending.await;
}

/// Makes the relay serve what the API server shows, until `shutdown`. Errors of the watch stop nothing.
async fn watch_listeners<D: DataPlane>(
    listeners: &mut Listeners<D>,
    api: Api<Guarded<SsmListener>>,
    desk: &Desk,
    listed: &watch::Sender<bool>,
    shutdown: &CancellationToken,
) -> Result<(), BindingError> {
    let bound = format!("spec.relay={}", desk.writer.relay);
    let config = watcher::Config::default().fields(&bound).page_size(PAGE);
    let pauses = Backoff::new(WATCH_PAUSE_MIN, WATCH_PAUSE_MAX);
    let mut events = pin!(paced(watcher(api, config).boxed(), pauses));
    let mut tick = tokio::time::interval(SETTLE_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut listing = Vec::new();
    loop {
        let event = tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            _ = tick.tick() => {
                if listeners.is_unsettled() {
                    listeners.settle();
                }
                continue;
            }
            event = events.next() => event.ok_or(BindingError::WatchEnded)?,
        };
        match event {
            Ok(Event::Init) => listing.clear(),
            Ok(Event::InitApply(object)) => listing.extend(listeners.read(object)),
            Ok(Event::InitDone) => {
                listeners.replace(std::mem::take(&mut listing));
                listed.send_replace(true);
            }
            Ok(Event::Apply(object)) => {
                if let Some(object) = listeners.read(object) {
                    listeners.apply(object);
                }
            }
            Ok(Event::Delete(object)) => {
                if let Some(object) = listeners.read(object) {
                    listeners.remove(&object);
                }
            }
            Err(error) => {
                desk.metrics.watch_errors.inc();
                warn!(%error, "the watch of listeners failed: serving on, and watching again");
            }
        }
    }
}

/// A Kubernetes error with its causes; the API server's own words, which kube would print twice.
pub(crate) fn words(error: &kube::Error) -> String {
    if let kube::Error::Api(status) = error {
        return format!("{} ({})", status.message, status.code);
    }
    with_causes(error)
}
