//! The credentials of one identity: the SDK's default chain or what a test injects, and how long they are kept.
//!
//! It promises that calls and signatures use the same credentials, resolved when they are needed and kept while
//! they are good, and that none of them is printed.

use std::fmt;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use aws_config::default_provider::credentials::DefaultCredentialsChain;
use aws_config::provider_config::ProviderConfig;
use aws_config::{BehaviorVersion, Region};
use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, future};
use aws_sdk_ssm::config::SharedHttpClient;
use tokio::sync::Mutex;
use tokio::time::timeout;

/// Credentials this near to their end are resolved anew, so that none expires on its way.
const RENEW_AHEAD: Duration = Duration::from_mins(5);

/// The SDK's default chain, also of what changes while it is used.
///
/// The SDK reads the files of profiles once for each chain, and remembers that they were missing. So a chain is used
/// again only while it gives credentials that end: what has no end, or could not be had, may be in another file soon.
pub(super) struct DefaultChain {
    /// STS is asked there: another partition's would not know the account.
    region: Region,
    http: SharedHttpClient,
    behaviour: BehaviorVersion,
    /// Remembers, too, what instance metadata gave before they were out of reach.
    chain: std::sync::Mutex<Option<Arc<DefaultCredentialsChain>>>,
}

impl DefaultChain {
    /// A chain that is made when it is first needed.
    pub(super) fn new(region: &str, http: SharedHttpClient, behaviour: BehaviorVersion) -> Self {
        Self {
            region: Region::new(region.to_owned()),
            http,
            behaviour,
            chain: std::sync::Mutex::default(),
        }
    }

    fn present(&self) -> MutexGuard<'_, Option<Arc<DefaultCredentialsChain>>> {
        self.chain.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn resolve(&self) -> Result<Credentials, CredentialsError> {
        let present = self.present().clone();
        let chain = match present {
            Some(chain) => chain,
            None => Arc::new(self.build().await),
        };
        // Who interrupts it asks the one that is present what it remembers; one that has never answered is not kept.
        let resolved = chain.provide_credentials().await;
        let good = resolved.as_ref().is_ok_and(|good| good.expiry().is_some());
        *self.present() = good.then_some(chain);
        resolved
    }

    async fn build(&self) -> DefaultCredentialsChain {
        let config = ProviderConfig::without_region()
            .with_behavior_version(Some(self.behaviour))
            .with_http_client(self.http.clone());
        DefaultCredentialsChain::builder()
            .configure(config)
            .region(self.region.clone())
            .build()
            .await
    }
}

impl ProvideCredentials for DefaultChain {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.resolve())
    }

    fn fallback_on_interrupt(&self) -> Option<Credentials> {
        self.present().as_ref()?.fallback_on_interrupt()
    }
}

impl fmt::Debug for DefaultChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DefaultChain([redacted])")
    }
}

/// Keeps credentials that say when they expire; others (the environment's, a file's) are cheap to read again,
/// and may be exchanged at any time.
///
/// The only cache: the SDK's own can't be told to forget what AWS refuses.
pub(super) struct KeptCredentials {
    /// Not the SDK's shared provider: that one forgets to pass on what a provider falls back to.
    source: Arc<dyn ProvideCredentials>,
    timeout: Duration,
    kept: Mutex<Option<Credentials>>,
}

impl KeptCredentials {
    /// Credentials of `source`, which gets `timeout` to answer.
    pub(super) fn new(source: Arc<dyn ProvideCredentials>, timeout: Duration) -> Self {
        Self {
            source,
            timeout,
            kept: Mutex::new(None),
        }
    }

    /// AWS refused the credentials: the next call resolves them anew, whatever they say of their end.
    pub(super) async fn forget(&self) {
        *self.kept.lock().await = None;
    }

    /// Whoever comes while credentials are being resolved waits for them instead of resolving them too.
    async fn resolve(&self) -> Result<Credentials, CredentialsError> {
        let mut kept = self.kept.lock().await;
        if let Some(good) = kept.as_ref().filter(|c| is_good(c, SystemTime::now())) {
            return Ok(good.clone());
        }
        let resolved = timeout(self.timeout, self.source.as_ref().provide_credentials()).await;
        let failure = match resolved {
            Ok(Ok(fresh)) => {
                *kept = fresh.expiry().is_some().then(|| fresh.clone());
                return Ok(fresh);
            }
            Ok(Err(error)) => error,
            Err(_elapsed) => CredentialsError::provider_timed_out(self.timeout),
        };
        // What is not renewed in time serves until it expires.
        let valid = |c: &Credentials| c.expiry().is_none_or(|at| at > SystemTime::now());
        let earlier = kept
            .clone()
            .or_else(|| self.source.as_ref().fallback_on_interrupt());
        earlier.filter(valid).ok_or(failure)
    }
}

fn is_good(credentials: &Credentials, now: SystemTime) -> bool {
    credentials
        .expiry()
        .is_some_and(|expiry| expiry > now + RENEW_AHEAD)
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

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Counts how often it is asked.
    #[derive(Clone, Debug)]
    struct Counting {
        lifetime: Option<Duration>,
        asked: Arc<AtomicUsize>,
    }

    impl ProvideCredentials for Counting {
        fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
        where
            Self: 'a,
        {
            self.asked.fetch_add(1, Ordering::SeqCst);
            let expiry = self.lifetime.map(|lifetime| SystemTime::now() + lifetime);
            let credentials = Credentials::new(
                "AKIDEXAMPLE",
                "SECRET",
                Some("SECRET".into()),
                expiry,
                "test",
            );
            future::ProvideCredentials::ready(Ok(credentials))
        }
    }

    fn counting(lifetime: Option<Duration>) -> (KeptCredentials, Arc<AtomicUsize>) {
        let source = Counting {
            lifetime,
            asked: Arc::default(),
        };
        let asked = source.asked.clone();
        (KeptCredentials::new(Arc::new(source), RENEW_AHEAD), asked)
    }

    #[tokio::test]
    async fn credentials_are_kept_while_they_are_good_and_no_longer() {
        let minute = Duration::from_mins(1);
        for (lifetime, expected) in [(Some(60 * minute), 1), (Some(4 * minute), 2), (None, 2)] {
            let (kept, asked) = counting(lifetime);
            for _ in 0..2 {
                assert_eq!(
                    kept.provide_credentials().await.unwrap().access_key_id(),
                    "AKIDEXAMPLE"
                );
            }
            assert_eq!(asked.load(Ordering::SeqCst), expected, "{lifetime:?}");
            assert!(!format!("{kept:?}").contains("SECRET"));
        }
    }

    /// Gives credentials that are to be renewed at once, and fails from then on.
    #[derive(Debug)]
    struct Once {
        lifetime: Duration,
        asked: AtomicUsize,
    }

    impl ProvideCredentials for Once {
        fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
        where
            Self: 'a,
        {
            if self.asked.fetch_add(1, Ordering::SeqCst) > 0 {
                return future::ProvideCredentials::ready(Err(CredentialsError::not_loaded("no")));
            }
            let expiry = SystemTime::now() + self.lifetime;
            let credentials = Credentials::new("AKIDONCE", "SECRET", None, Some(expiry), "test");
            future::ProvideCredentials::ready(Ok(credentials))
        }
    }

    #[tokio::test]
    async fn credentials_that_can_not_be_renewed_serve_until_they_expire() {
        for (lifetime, serves) in [(RENEW_AHEAD / 2, true), (Duration::ZERO, false)] {
            let source = Once {
                lifetime,
                asked: AtomicUsize::default(),
            };
            let kept = KeptCredentials::new(Arc::new(source), RENEW_AHEAD);
            kept.provide_credentials().await.unwrap();
            assert_eq!(kept.provide_credentials().await.is_ok(), serves);
        }
    }

    #[tokio::test]
    async fn forgotten_credentials_are_resolved_anew() {
        let (kept, asked) = counting(Some(Duration::from_hours(1)));
        kept.provide_credentials().await.unwrap();
        kept.forget().await;
        kept.provide_credentials().await.unwrap();
        assert_eq!(asked.load(Ordering::SeqCst), 2);
    }

    /// Never answers, but may remember what it gave before.
    #[derive(Debug, Default)]
    struct Silent(Mutex<Option<Credentials>>);

    impl ProvideCredentials for Silent {
        fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
        where
            Self: 'a,
        {
            future::ProvideCredentials::new(std::future::pending())
        }

        fn fallback_on_interrupt(&self) -> Option<Credentials> {
            self.0.lock().unwrap().clone()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_provider_that_does_not_answer_is_given_up_or_falls_back() {
        let timeout = Duration::from_secs(10);
        let kept = KeptCredentials::new(Arc::new(Silent::default()), timeout);
        let error = kept.provide_credentials().await.unwrap_err();
        assert!(
            matches!(error, CredentialsError::ProviderTimedOut(_)),
            "{error}"
        );
        let earlier = Credentials::new("AKIDEARLIER", "SECRET", None, None, "test");
        let silent = Silent(Mutex::new(Some(earlier)));
        let kept = KeptCredentials::new(Arc::new(silent), timeout);
        assert_eq!(
            kept.provide_credentials().await.unwrap().access_key_id(),
            "AKIDEARLIER"
        );
    }
}
