//! The credentials of one identity, and how long they are kept.
//!
//! It promises that calls and signatures use the same credentials, resolved when they are needed and kept while
//! they are good; that nobody who has valid ones waits for somebody else's renewal; that who has none waits for one
//! failure of the source and not for one after the other; and that no credentials are printed.

use std::fmt;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, future};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use crate::backoff::spread;

/// Credentials this near to their end are resolved anew, so that none expires on its way.
pub(super) const RENEW_AHEAD: Duration = Duration::from_mins(5);

/// After a renewal that failed, at least so long until the next, and at most a quarter of that more. A source that does
/// not answer holds up one call in this time and not each, and there are still some tries until the credentials end.
pub(super) const RENEW_PAUSE: Duration = Duration::from_secs(30);

/// Credentials that are denied a call are renewed if they are older: IAM may have revoked what was handed out until
/// then. If it is a right that is missing, the source is asked once in this time and not for every call.
pub(super) const DOUBT_AFTER: Duration = Duration::from_mins(1);

/// Credentials that AWS does not accept are resolved anew if they are older. Newer ones would hardly be better: a clock
/// that is wrong, a Region that is not enabled or a policy of the organization makes it refuse them all, and then the
/// source is asked once in this time and not for every call. Shorter than for a doubt, since nothing works meanwhile.
pub(super) const FORGET_AFTER: Duration = Duration::from_secs(30);

/// What the source has said is what everybody gets for so long: that there are no credentials, or some that end soon or
/// should have ended already. The calls of many listeners come one by one, as the rate limiter and their back-offs let
/// them, and this is how often a missing role or a wrong clock is asked about. It is hardly noticed among the back-offs of
/// those who wait for it to be mended.
pub(super) const ASK_PAUSE: Duration = Duration::from_secs(5);

/// Keeps credentials that say when they expire; others (the environment's, a file's) are cheap to read again,
/// and may be exchanged at any time.
///
/// Whatever goes wrong and for however long, a source of such credentials is not asked for every call: not while it has
/// none or none that last ([`ASK_PAUSE`]), nor when it fails to renew them ([`RENEW_PAUSE`]), nor because AWS does not
/// accept them ([`FORGET_AFTER`]) or denies a call ([`DOUBT_AFTER`]): what is newer than that is not given up.
///
/// The only cache: the SDK's own can't be told to forget what AWS refuses.
pub(super) struct KeptCredentials {
    /// Not the SDK's shared provider: that one forgets to pass on what a provider falls back to.
    source: Arc<dyn ProvideCredentials>,
    timeout: Duration,
    kept: std::sync::Mutex<Option<Kept>>,
    /// Held by the one that asks the source, and what it leaves to those who waited if it gets nothing. Who is interrupted
    /// while it asks leaves that to the next.
    asking: Mutex<Option<Failure>>,
}

/// Why the source had no credentials, the last time that it was asked.
struct Failure {
    why: Arc<CredentialsError>,
    /// Until then it is the answer for all who have none.
    until: Instant,
}

impl Failure {
    fn new(why: CredentialsError) -> Self {
        Self {
            why: Arc::new(why),
            until: Instant::now() + ASK_PAUSE,
        }
    }

    /// The same for everybody, with the failure as its source.
    fn told(&self) -> CredentialsError {
        CredentialsError::provider_error(self.why.clone())
    }
}

#[derive(Clone)]
struct Kept {
    credentials: Credentials,
    since: Instant,
    /// They were denied a call, and might not be if they were new.
    doubted: bool,
    /// Until then they are not renewed, as long as they are valid.
    renew_at: Instant,
}

impl Kept {
    fn new(credentials: Credentials) -> Self {
        let now = Instant::now();
        Self {
            credentials,
            since: now,
            doubted: false,
            renew_at: now + ASK_PAUSE,
        }
    }

    /// What has just come has to do, whatever it says of its end.
    fn is_valid(&self) -> bool {
        self.since.elapsed() < ASK_PAUSE || self.lasts()
    }

    fn lasts(&self) -> bool {
        let expiry = self.credentials.expiry();
        expiry.is_none_or(|expiry| expiry > SystemTime::now())
    }

    fn is_due(&self) -> bool {
        let expiry = self.credentials.expiry();
        let good = expiry.is_some_and(|expiry| expiry > SystemTime::now() + RENEW_AHEAD);
        (self.doubted || !good) && Instant::now() >= self.renew_at
    }

    /// Spread, so that identities that share a source do not come back to it together.
    fn put_off(&mut self) {
        self.renew_at = Instant::now() + spread(RENEW_PAUSE);
    }
}

impl KeptCredentials {
    /// Credentials of `source`, which gets `timeout` to answer.
    pub(super) fn new(source: Arc<dyn ProvideCredentials>, timeout: Duration) -> Self {
        Self {
            source,
            timeout,
            kept: std::sync::Mutex::default(),
            asking: Mutex::default(),
        }
    }

    /// AWS does not accept the credentials: the next call resolves them anew, whatever they say of their end, unless they
    /// are new.
    pub(super) fn forget(&self) {
        let mut kept = self.kept();
        *kept = kept
            .take()
            .filter(|kept| kept.since.elapsed() < FORGET_AFTER);
    }

    /// AWS accepts the credentials and denies them a call: the next call renews them, unless they are new. They serve on
    /// if they can't be renewed, since other calls may be allowed.
    pub(super) fn doubt(&self) {
        if let Some(kept) = self.kept().as_mut()
            && kept.since.elapsed() >= DOUBT_AFTER
        {
            kept.doubted = true;
        }
    }

    fn kept(&self) -> MutexGuard<'_, Option<Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn valid(&self) -> Option<Kept> {
        self.kept().clone().filter(Kept::is_valid)
    }

    /// One renews, and who has valid credentials meanwhile takes those. Who has none waits for the one that asks, and takes
    /// what it gets.
    async fn resolve(&self) -> Result<Credentials, CredentialsError> {
        let mut asking = match self.valid() {
            Some(kept) if !kept.is_due() => return Ok(kept.credentials),
            Some(kept) => match self.asking.try_lock() {
                Ok(asking) => asking,
                Err(_) => return Ok(kept.credentials),
            },
            None => self.asking.lock().await,
        };
        // Another may have asked in between.
        let failure = asking.as_ref().filter(|last| Instant::now() < last.until);
        match (self.valid(), failure) {
            (Some(kept), _) if !kept.is_due() => Ok(kept.credentials),
            (None, Some(failure)) => Err(failure.told()),
            (Some(_) | None, _) => {
                let asked = self.ask().await;
                asked.map_err(|failure| asking.insert(failure).told())
            }
        }
    }

    async fn ask(&self) -> Result<Credentials, Failure> {
        // Before it is known to fail: who asks may be interrupted.
        if let Some(kept) = self.kept().as_mut() {
            kept.put_off();
        }
        let resolved = timeout(self.timeout, self.source.as_ref().provide_credentials()).await;
        let failure = match resolved {
            Ok(Ok(fresh)) => {
                let ends = fresh.expiry().is_some();
                *self.kept() = ends.then(|| Kept::new(fresh.clone()));
                return Ok(fresh);
            }
            Ok(Err(error)) => error,
            Err(_elapsed) => CredentialsError::provider_timed_out(self.timeout),
        };
        // What is not renewed in time serves until it expires.
        let mut kept = self.kept();
        let earlier = kept.take().filter(Kept::lasts).or_else(|| {
            let earlier = self.source.as_ref().fallback_on_interrupt()?;
            Some(Kept::new(earlier)).filter(Kept::lasts)
        });
        let earlier = earlier.ok_or_else(|| Failure::new(failure))?;
        let earlier = kept.insert(earlier);
        earlier.put_off();
        Ok(earlier.credentials.clone())
    }
}

impl ProvideCredentials for KeptCredentials {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.resolve())
    }

    fn fallback_on_interrupt(&self) -> Option<Credentials> {
        self.source.as_ref().fallback_on_interrupt()
    }
}

impl fmt::Debug for KeptCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeptCredentials([redacted])")
    }
}
