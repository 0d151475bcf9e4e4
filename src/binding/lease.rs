//! The relay's Lease: the proof that this run of its process lives, and how many listeners it takes.
//!
//! A relay's name belongs to the newest run: a starting process takes the Lease over at once, since the older one is
//! either dead or cut off, and a run that finds another holder fences itself.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::api::PostParams;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::metrics::BindingMetrics;
use super::record::FIELD_MANAGER;
use super::words;
use crate::backoff::Backoff;
use crate::crd::{RELAY_CAPACITY_ANNOTATION, RELAY_LEASE_LABEL};
use crate::lease::{held, holder, released};

/// The first pause after a failed renewal; they grow up to the renewal interval.
const RETRY_MIN: Duration = Duration::from_millis(200);

/// How long giving the Lease back may take at least: it is tried once, and nothing waits behind it.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(5);

/// What a relay claims with its Lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Name of the relay, and of its Lease.
    pub relay: String,
    /// This run of its process: the holder.
    pub incarnation: String,
    /// Value of [`RELAY_LEASE_LABEL`]: the installation that finds its relays by it.
    pub label: String,
    /// For how long the Lease holds without renewal.
    pub duration: Duration,
    /// How many listeners the relay takes.
    pub capacity: usize,
}

/// What to do with the Lease that is stored.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// There is none: create this.
    Create(Box<Lease>),
    /// Replace it by this.
    Replace(Box<Lease>),
    /// Another run holds the name now: stop serving.
    Fenced {
        /// Its incarnation.
        holder: String,
    },
    /// The Lease is nobody's relay's: something else uses the name, and keeps it.
    Foreign,
}

/// Decides about the stored Lease; `held` says whether this run has held it before.
#[must_use]
pub fn decide(stored: Option<&Lease>, held: bool, claim: &Claim, now: Timestamp) -> Step {
    let Some(stored) = stored else {
        return Step::Create(Box::new(renewed(Lease::default(), claim, now)));
    };
    let labels = stored.metadata.labels.as_ref();
    if !labels.is_some_and(|labels| labels.contains_key(RELAY_LEASE_LABEL)) {
        return Step::Foreign;
    }
    match holder(stored) {
        Some(holder) if held && holder != claim.incarnation => Step::Fenced {
            holder: holder.to_owned(),
        },
        Some(_) | None => Step::Replace(Box::new(renewed(stored.clone(), claim, now))),
    }
}

/// `lease`, held by this run as of `now`.
fn renewed(mut lease: Lease, claim: &Claim, now: Timestamp) -> Lease {
    let Claim {
        relay,
        incarnation,
        label,
        duration,
        capacity,
    } = claim;
    lease.metadata.name = Some(relay.clone());
    let labels = lease.metadata.labels.get_or_insert_default();
    labels.insert(RELAY_LEASE_LABEL.to_owned(), label.clone());
    let annotations = lease.metadata.annotations.get_or_insert_default();
    annotations.insert(RELAY_CAPACITY_ANNOTATION.to_owned(), capacity.to_string());
    held(lease, incarnation, *duration, now)
}

/// Why a Lease is not held.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// Another run of the relay holds it.
    #[error(
        "another process runs as relay {relay:?} (incarnation {holder}): this one stops serving"
    )]
    Fenced {
        /// The relay.
        relay: String,
        /// The other run's incarnation.
        holder: String,
    },
    /// Something else uses a Lease of that name.
    #[error(
        "Lease {0:?} has no label {RELAY_LEASE_LABEL}: it is not a relay's, so the relay needs another name"
    )]
    Foreign(String),
    /// The API server did not do it.
    #[error("API server: {}", words(.0))]
    Api(#[source] Box<kube::Error>),
    /// The API server did not answer.
    #[error("the API server did not answer within {0:?}")]
    Silent(Duration),
}

/// The Lease of this run.
pub struct RelayLease {
    api: Api<Lease>,
    claim: Claim,
    renew_every: Duration,
    metrics: BindingMetrics,
    stored: Option<Lease>,
    held: bool,
}

impl RelayLease {
    /// A Lease that is not held yet, renewed each `renew_every`; every call to the API server has that long.
    #[must_use]
    pub fn new(
        api: Api<Lease>,
        claim: Claim,
        renew_every: Duration,
        metrics: BindingMetrics,
    ) -> Self {
        Self {
            api,
            claim,
            renew_every,
            metrics,
            stored: None,
            held: false,
        }
    }

    /// Takes the Lease, trying until it is held or `shutdown` is cancelled; `Ok(false)` is the latter.
    ///
    /// # Errors
    /// [`LeaseError::Foreign`], which trying does not heal.
    pub async fn acquire(&mut self, shutdown: &CancellationToken) -> Result<bool, LeaseError> {
        let mut pauses = Backoff::new(RETRY_MIN, self.renew_every);
        loop {
            match self.renew().await {
                Ok(()) => {
                    let Claim {
                        relay, incarnation, ..
                    } = &self.claim;
                    info!(relay, incarnation, "holding the relay's Lease");
                    return Ok(true);
                }
                Err(error @ (LeaseError::Foreign(_) | LeaseError::Fenced { .. })) => {
                    return Err(error);
                }
                Err(error) => {
                    warn!(relay = self.claim.relay, %error, "no Lease yet: trying again");
                }
            }
            tokio::select! {
                () = shutdown.cancelled() => return Ok(false),
                () = tokio::time::sleep(pauses.next_delay()) => {}
            }
        }
    }

    /// Renews the Lease until `stop` is cancelled. An API server that is away ends nothing: the relay serves on.
    ///
    /// # Errors
    /// [`LeaseError::Fenced`] and [`LeaseError::Foreign`].
    pub async fn keep(&mut self, stop: &CancellationToken) -> Result<(), LeaseError> {
        let mut pauses = Backoff::new(RETRY_MIN, self.renew_every);
        let mut next = Instant::now() + self.renew_every;
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep_until(next) => {}
            }
            let started = Instant::now();
            match self.renew().await {
                Ok(()) => {
                    pauses.reset();
                    next = started + self.renew_every;
                }
                Err(error @ (LeaseError::Foreign(_) | LeaseError::Fenced { .. })) => {
                    return Err(error);
                }
                Err(error) => {
                    warn!(relay = self.claim.relay, %error, "Lease not renewed: trying again");
                    next = Instant::now() + pauses.next_delay();
                }
            }
        }
    }

    /// Gives the Lease back, so that the relay counts as gone at once. Unreleased, it runs out by itself.
    pub async fn release(mut self) {
        let relay = self.claim.relay.clone();
        let limit = self.renew_every.max(RELEASE_TIMEOUT);
        match timeout(limit, self.release_stored()).await {
            Ok(Ok(true)) => info!(relay, "released the relay's Lease"),
            Ok(Ok(false)) => info!(relay, "the relay's Lease is not held: nothing to release"),
            Ok(Err(error)) => warn!(
                relay,
                error = words(&error),
                "Lease not released: it runs out"
            ),
            Err(_) => warn!(relay, "Lease not released in time: it runs out"),
        }
    }

    /// Whether there was a Lease of ours to release.
    ///
    /// A renewal that was broken off may get through at any time, and then what is known of the Lease is old: it is
    /// read again. That happens once or twice, and the deadline of the whole bounds it in any case.
    async fn release_stored(&mut self) -> Result<bool, kube::Error> {
        loop {
            let stored = match self.stored.take() {
                Some(stored) => Some(stored),
                None => self.api.get_opt(&self.claim.relay).await?,
            };
            let ours =
                stored.filter(|lease| holder(lease) == Some(self.claim.incarnation.as_str()));
            let Some(lease) = ours else { return Ok(false) };
            let body = released(lease, Timestamp::now());
            match self.api.replace(&self.claim.relay, &params(), &body).await {
                Ok(_) => return Ok(true),
                Err(kube::Error::Api(status)) if status.is_conflict() => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// One renewal; reads the Lease when it is not known or has changed.
    async fn renew(&mut self) -> Result<(), LeaseError> {
        let limit = self.renew_every;
        let result = match timeout(limit, self.renew_once()).await {
            Ok(result) => result,
            Err(_) => Err(LeaseError::Silent(limit)),
        };
        if result.is_ok() {
            self.metrics.lease_renewals.inc();
        } else {
            // Whether a write got through is unknown, so the next try reads first.
            self.stored = None;
            self.metrics.lease_failures.inc();
        }
        result
    }

    async fn renew_once(&mut self) -> Result<(), LeaseError> {
        if self.stored.is_none() {
            self.stored = self
                .api
                .get_opt(&self.claim.relay)
                .await
                .map_err(api_error)?;
        }
        let step = decide(
            self.stored.as_ref(),
            self.held,
            &self.claim,
            Timestamp::now(),
        );
        let stored = match step {
            Step::Create(lease) => self.api.create(&params(), &lease).await,
            Step::Replace(lease) => self.api.replace(&self.claim.relay, &params(), &lease).await,
            Step::Fenced { holder } => {
                return Err(LeaseError::Fenced {
                    relay: self.claim.relay.clone(),
                    holder,
                });
            }
            Step::Foreign => return Err(LeaseError::Foreign(self.claim.relay.clone())),
        };
        self.stored = Some(stored.map_err(api_error)?);
        self.held = true;
        Ok(())
    }
}

fn params() -> PostParams {
    PostParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PostParams::default()
    }
}

fn api_error(error: kube::Error) -> LeaseError {
    LeaseError::Api(Box::new(error))
}
