//! Which of several processes leads: a Lease in Kubernetes, and what one does with it.
//!
//! A leader renews its Lease. Who has seen it unchanged for its whole duration takes it over. A leader that could not
//! renew it for the shorter renew deadline is stopped where it stands, and stands for election again: so one has stopped
//! before another starts, as long as their clocks run equally fast. What they show is never compared. A leader that slept
//! may run for a moment before it is stopped: it asks its [`Term`] before it acts.

mod decide;
#[cfg(test)]
mod tests;

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::PostParams;
use kube::{Api, ResourceExt};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::backoff::halved;
use crate::lease::{Term, Watched, holder, released};
use decide::{Step, decide};

/// The field manager of the Lease.
const FIELD_MANAGER: &str = "ssm-session-operator-election";

/// How long each step of an election takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// For how long others see a Lease unchanged before one of them takes it.
    pub duration: Duration,
    /// For how long a leader acts without a renewal; shorter than `duration` by more than what clocks may drift.
    pub renew_deadline: Duration,
    /// How often a leader renews, and others look; shorter than `renew_deadline`.
    pub retry: Duration,
}

/// A process that stands for election.
pub struct Candidate {
    api: Api<Lease>,
    name: String,
    identity: String,
    timing: Timing,
    /// The Lease as it was stored last, as far as that is known.
    stored: Option<Lease>,
    /// By its resourceVersion.
    watched: Watched<String>,
}

/// What became of a try to hold the Lease.
enum Try {
    /// It is held, by a write that was begun at this instant.
    Held(Instant),
    /// Another holds it.
    Anothers,
    /// Somebody wrote meanwhile: it is to be looked at again.
    Overtaken,
}

impl Candidate {
    /// A candidate for the Lease `name`. The identity names the process, and is another for each of its runs.
    #[must_use]
    pub fn new(api: Api<Lease>, name: String, identity: String, timing: Timing) -> Self {
        Self {
            api,
            name,
            identity,
            timing,
            stored: None,
            watched: Watched::default(),
        }
    }

    /// Stands for election until `shutdown`, and runs what `begin` gives each time it is won.
    ///
    /// `begin` is given the term, which must be asked before each act, and a token. On shutdown the token is cancelled, and
    /// the Lease is kept until the run has ended, and then given back. When the Lease is lost the run is dropped, and the candidate stands again. `standing_by` hears of each term's
    /// begin (`false`), and of its loss and each time that another is seen to lead (`true`).
    ///
    /// # Errors
    /// Those of a run; it then gives the Lease back.
    pub async fn lead<F, E>(
        mut self,
        shutdown: CancellationToken,
        standing_by: impl Fn(bool),
        mut begin: impl FnMut(Term, CancellationToken) -> F,
    ) -> Result<(), E>
    where
        F: Future<Output = Result<(), E>>,
    {
        loop {
            let acquired = tokio::select! {
                () = shutdown.cancelled() => None,
                held_at = self.acquire(&standing_by) => Some(held_at),
            };
            let Some(held_at) = acquired else {
                // A write may have got through though nobody waited for its answer.
                self.release().await;
                return Ok(());
            };
            info!(
                lease = self.name,
                identity = self.identity,
                "elected: leading"
            );
            standing_by(false);
            let stop = shutdown.child_token();
            let term = Term::new(held_at + self.timing.renew_deadline);
            let ended = tokio::select! {
                // First, since after a pause of the process all are due and only this one knows it.
                biased;
                () = self.keep(&term) => None,
                ended = begin(term.clone(), stop) => Some(ended),
            };
            term.end();
            if let Some(ended) = ended {
                self.release().await;
                return ended;
            }
            standing_by(true);
        }
    }

    /// Tries until the Lease is held; since when it is.
    async fn acquire(&mut self, standing_by: &impl Fn(bool)) -> Instant {
        loop {
            match timeout(self.timing.renew_deadline, self.attempt()).await {
                Ok(Ok(Try::Held(at))) => return at,
                Ok(Ok(Try::Anothers)) => standing_by(true),
                Ok(Ok(Try::Overtaken)) => {}
                Ok(Err(error)) => {
                    warn!(lease = self.name, %error, "the Lease can't be read or written: trying again");
                }
                Err(_) => {
                    warn!(
                        lease = self.name,
                        "the API server does not answer: trying again"
                    );
                }
            }
            sleep(self.pause()).await;
        }
    }

    /// Renews the Lease, and the term with it, until it is lost.
    async fn keep(&mut self, term: &Term) {
        loop {
            let deadline = term.deadline();
            if timeout_at(deadline, sleep(self.pause())).await.is_err() {
                break;
            }
            match timeout_at(deadline, self.attempt()).await {
                Ok(Ok(Try::Held(at))) => term.renew(at + self.timing.renew_deadline),
                Ok(Ok(Try::Anothers)) => {
                    warn!(
                        lease = self.name,
                        "another process leads now: this one stops, and stands by"
                    );
                    return;
                }
                Ok(Ok(Try::Overtaken)) => {}
                Ok(Err(error)) => warn!(lease = self.name, %error, "not renewed: trying again"),
                Err(_) => break,
            }
        }
        warn!(
            lease = self.name,
            limit = ?self.timing.renew_deadline,
            "the Lease could not be renewed in time: this process stops leading, and stands for election again"
        );
    }

    /// One look at the Lease, and one write if it is ours or nobody's.
    async fn attempt(&mut self) -> Result<Try, kube::Error> {
        let stored = match self.stored.take() {
            Some(stored) => Some(stored),
            None => self.api.get_opt(&self.name).await?,
        };
        let now = Instant::now();
        let version = stored.as_ref().and_then(ResourceExt::resource_version);
        self.watched.handle_look(version, now);
        let step = decide(
            stored.as_ref(),
            &self.name,
            &self.identity,
            self.timing.duration,
            self.watched.unchanged_for(now),
            Timestamp::now(),
        );
        let written = match step {
            Step::Wait => return Ok(Try::Anothers),
            Step::Create(lease) => self.api.create(&params(), &lease).await,
            Step::Replace(lease) => self.api.replace(&self.name, &params(), &lease).await,
        };
        match written {
            Ok(lease) => {
                self.stored = Some(lease);
                Ok(Try::Held(now))
            }
            // Created, changed or deleted meanwhile.
            Err(kube::Error::Api(status)) if status.is_conflict() || status.is_not_found() => {
                debug!(lease = self.name, "another write came first");
                Ok(Try::Overtaken)
            }
            Err(error) => Err(error),
        }
    }

    /// Gives the Lease back if it is held, so that another need not wait for its end.
    async fn release(&mut self) {
        let limit = self.timing.renew_deadline;
        match timeout(limit, self.release_stored()).await {
            Ok(Ok(true)) => info!(lease = self.name, "gave the Lease back"),
            Ok(Ok(false)) => {}
            Ok(Err(error)) => {
                warn!(lease = self.name, %error, "the Lease was not given back: it runs out");
            }
            Err(_) => {
                warn!(
                    lease = self.name,
                    "the Lease was not given back in time: it runs out"
                );
            }
        }
    }

    async fn release_stored(&mut self) -> Result<bool, kube::Error> {
        loop {
            // What is known may be old: a renewal that was broken off can have got through.
            let stored = self.api.get_opt(&self.name).await?;
            let Some(lease) = stored.filter(|lease| holder(lease) == Some(self.identity.as_str()))
            else {
                return Ok(false);
            };
            let body = released(lease, Timestamp::now());
            match self.api.replace(&self.name, &params(), &body).await {
                Ok(_) => return Ok(true),
                Err(kube::Error::Api(status)) if status.is_conflict() => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Half of the interval at least: candidates that started together do not look together.
    fn pause(&self) -> Duration {
        halved(self.timing.retry)
    }
}

fn params() -> PostParams {
    PostParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PostParams::default()
    }
}
