//! Has the controllers of an installation let everything go, and waits until they have.
//!
//! It asks by a Lease that it renews, and looks at what is left: this process takes nothing away by itself. When it has
//! ended, well or not, the Lease runs out: until then the controllers begin nothing, so that they can be deleted, and
//! where they are not, they serve again afterwards without anybody's doing.

mod progress;

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{ListParams, ObjectList, PartialObjectMeta, PostParams, Request};
use kube::{Api, Client, Resource, ResourceExt};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::backoff::delay;
use crate::crd::{
    DRAIN_LEASE, INSTALLATION_LABEL, INSTALLATION_LEASE, SsmListener, SsmSession, session_finalizer,
};
use crate::lease::{held, holder, promised};
use crate::reading::Guarded;
use progress::{Lead, LeadSeen, Leader, Left, Progress};

/// The field manager of the Lease.
const FIELD_MANAGER: &str = "ssm-session-operator-drain";

/// In how many parts the Lease's duration is divided: after each it is renewed and everything looked at, and several
/// renewals may fail before controllers go back to work.
const LOOKS_PER_DURATION: u32 = 10;

/// Between two looks at most, however long the Lease holds: whoever uninstalls waits for the last one.
const PAUSE_MAX: Duration = Duration::from_secs(3);

/// By how much the pause grows at most while the API server fails.
const PAUSE_GROWTH: u32 = 2;

/// How long the calls of one look may take, in pauses between two: a quarter of the Lease's duration at most, so that one
/// that hangs and the pauses around it leave time for two more.
const CALL_LOOKS_MAX: u32 = LOOKS_PER_DURATION / 4;

/// How a drain goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrainOptions {
    /// The operator's namespace.
    pub namespace: String,
    /// Which installation is to drain, as finalizers and labels name it.
    pub installation: String,
    /// Name of the Lease for which its controllers stand.
    pub election_lease: String,
    /// Names this process, and is another for each of its runs.
    pub identity: String,
    /// How long to wait until everything was let go.
    pub timeout: Duration,
    /// For how long the controllers stay drained after a renewal.
    pub duration: Duration,
    /// For how long nothing may be left before that is believed: a controller may have begun something just before it saw
    /// the Lease.
    pub quiet: Duration,
}

/// Why a drain ended before everything was let go.
#[derive(Debug, thiserror::Error)]
pub enum Undrained {
    /// Its time is over.
    #[error(
        "not everything was let go within {timeout:?}: {words}. Nothing was taken away by force, and controllers that run \
         serve again within {duration:?}. Once the cause is mended, drain or uninstall again; docs/upgrade.md has the way \
         by force, for which `helm uninstall --no-hooks` leaves the drain out"
    )]
    Overdue {
        /// How long it has waited.
        timeout: Duration,
        /// What is left, and what is known of who should have let it go.
        words: String,
        /// How long the Lease holds.
        duration: Duration,
    },
    /// Somebody ended this process.
    #[error("asked to end before everything was let go: {0}")]
    Stopped(String),
}

/// Asks, and waits until nothing is left.
///
/// # Errors
/// When something is left at the deadline, or at `shutdown`.
pub async fn run(
    client: &Client,
    options: DrainOptions,
    shutdown: &CancellationToken,
) -> Result<(), Undrained> {
    let pause = (options.duration / LOOKS_PER_DURATION).min(PAUSE_MAX);
    let begun = Instant::now();
    let mut failures: u32 = 0;
    let mut looks = Looks::new(client, options);
    let mut progress = Progress::default();
    info!(
        lease = DRAIN_LEASE,
        timeout = ?looks.options.timeout,
        "asking the controllers to end every listener and to let every SsmSession go"
    );
    loop {
        let options = &looks.options;
        let (quiet, limit) = (options.quiet, options.timeout);
        match timeout(pause * CALL_LOOKS_MAX, looks.look()).await {
            Ok(Ok((left, leader))) => {
                progress.handle_look(left, leader, Instant::now());
                failures = 0;
            }
            Ok(Err(error)) => {
                warn!(%error, "the API server does not do what it is asked: trying again");
                progress.handle_failure();
                failures += 1;
            }
            Err(_) => {
                warn!("the API server does not answer: trying again");
                progress.handle_failure();
                failures += 1;
            }
        }
        if let Some((left, leader)) = progress.poll_news() {
            match leader {
                Leader::Leads => info!(%left, "waiting"),
                Leader::Unknown => info!(%left, %leader, "waiting"),
                Leader::Nobody => warn!(%left, %leader, "waiting"),
            }
        }
        let now = Instant::now();
        if progress.is_over(quiet, now) {
            info!(
                lease = DRAIN_LEASE,
                runs_out = ?looks.options.duration,
                "everything was let go; until the Lease runs out nothing is begun"
            );
            return Ok(());
        }
        if now.duration_since(begun) >= limit && progress.is_waiting() {
            return Err(Undrained::Overdue {
                timeout: limit,
                words: progress.words(),
                duration: looks.options.duration,
            });
        }
        let pause = delay(pause, pause * PAUSE_GROWTH, failures + 1);
        tokio::select! {
            () = shutdown.cancelled() => return Err(Undrained::Stopped(progress.words())),
            () = sleep(pause) => {}
        }
    }
}

/// What is written and read each time.
struct Looks {
    options: DrainOptions,
    leases: Api<Lease>,
    client: Client,
    /// The Lease as it was stored last, as far as that is known.
    stored: Option<Lease>,
    lead: Lead,
    /// It was said that finalizers of some sessions can't be read.
    told: bool,
}

impl Looks {
    fn new(client: &Client, options: DrainOptions) -> Self {
        let namespace = &options.namespace;
        Self {
            leases: Api::namespaced(client.clone(), namespace),
            client: client.clone(),
            options,
            stored: None,
            lead: Lead::default(),
            told: false,
        }
    }

    /// Renews the Lease, and then looks at what is left.
    async fn look(&mut self) -> Result<(Left, Leader), kube::Error> {
        let owner = self.leases.get_opt(INSTALLATION_LEASE).await?;
        let is_anothers = owner.is_some_and(|lease| {
            lease.labels().get(INSTALLATION_LABEL) != Some(&self.options.installation)
        });
        let mut listeners = Vec::new();
        if is_anothers {
            debug!("the namespace is another installation's, and so are the SsmListeners in it");
        } else {
            self.renew().await?;
            let namespace = Some(self.options.namespace.as_str());
            let found = self.metadata_of::<SsmListener>(namespace).await?;
            listeners.extend(found.iter().map(ResourceExt::name_any));
        }
        let finalizer = session_finalizer(&self.options.installation);
        let sessions = self.metadata_of::<SsmSession>(None).await?;
        self.tell_unread(&sessions);
        let ours = sessions
            .iter()
            .filter(|s| s.finalizers().contains(&finalizer));
        let name = |namespace: Option<String>, name: String| {
            format!("{}/{name}", namespace.unwrap_or_default())
        };
        let sessions = ours.map(|s| name(s.namespace(), s.name_any())).collect();
        let left = Left {
            listeners,
            sessions,
        };
        Ok((left, self.leader().await?))
    }

    /// What there is of a kind, each object for itself.
    async fn metadata_of<K>(
        &self,
        namespace: Option<&str>,
    ) -> Result<Vec<Guarded<PartialObjectMeta<K>>>, kube::Error>
    where
        K: Resource<DynamicType = ()> + Clone + std::fmt::Debug,
    {
        let request = Request::new(K::url_path(&(), namespace));
        let request = request.list_metadata(&ListParams::default());
        let request = request.map_err(kube::Error::BuildRequest)?;
        found(self.client.request(request).await)
    }

    /// Says, once, of which sessions nobody knows the finalizers: nobody can take ours off either, so they aren't waited for.
    fn tell_unread(&mut self, sessions: &[Guarded<PartialObjectMeta<SsmSession>>]) {
        let unread = sessions
            .iter()
            .filter_map(|session| session.0.as_ref().err());
        let mut unread = unread.filter(|unreadable| !unreadable.has_known_finalizers());
        if let Some(first) = unread.next().filter(|_| !self.told) {
            self.told = true;
            let (namespace, name) = (&first.metadata.namespace, &first.metadata.name);
            warn!(namespace, name, more = unread.count(), why = %first.why,
                "the finalizers of an SsmSession can't be read: what runs for it is ended, and no finalizer taken off. \
                 Shorten the list by hand");
        }
    }

    /// Whoever held it: all who ask, ask for the same.
    async fn renew(&mut self) -> Result<(), kube::Error> {
        let stored = match self.stored.take() {
            Some(stored) => Some(stored),
            None => self.leases.get_opt(DRAIN_LEASE).await?,
        };
        let is_new = stored.is_none();
        let mut lease = stored.unwrap_or_default();
        lease.metadata.name = Some(DRAIN_LEASE.to_owned());
        let of_us = (
            INSTALLATION_LABEL.to_owned(),
            self.options.installation.clone(),
        );
        lease.metadata.labels = Some([of_us].into());
        let (identity, duration) = (&self.options.identity, self.options.duration);
        let lease = held(lease, identity, duration, Timestamp::now());
        let params = PostParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PostParams::default()
        };
        let written = if is_new {
            self.leases.create(&params, &lease).await
        } else {
            self.leases.replace(DRAIN_LEASE, &params, &lease).await
        };
        match written {
            Ok(lease) => self.stored = Some(lease),
            // Another has renewed it, or deleted it; the next look reads it again.
            Err(kube::Error::Api(status))
                if status.is_conflict() || status.is_already_exists() || status.is_not_found() => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Whether a controller leads, who alone can let something go, as this process sees it.
    async fn leader(&mut self) -> Result<Leader, kube::Error> {
        let lease = self.leases.get_opt(&self.options.election_lease).await?;
        let seen = lease.map_or_else(LeadSeen::default, |lease| LeadSeen {
            version: lease.resource_version(),
            held: holder(&lease).is_some(),
            duration: promised(&lease).unwrap_or_default(),
        });
        Ok(self.lead.handle_look(seen, Instant::now()))
    }
}

/// What a list has, and nothing where the kind itself is gone: then so are all of its objects.
fn found<K: Clone>(listed: Result<ObjectList<K>, kube::Error>) -> Result<Vec<K>, kube::Error> {
    match listed {
        Ok(list) => Ok(list.items),
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}
