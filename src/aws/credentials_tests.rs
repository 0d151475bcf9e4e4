//! When credentials are kept, renewed and given up, in virtual time.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, future};
use futures::future::join_all;
use tokio::time::{Instant, sleep, timeout};

use super::classify::Cause;
use super::credentials::{
    ASK_PAUSE, DOUBT_AFTER, FORGET_AFTER, KeptCredentials, RENEW_AHEAD, RENEW_PAUSE,
};

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

#[tokio::test(start_paused = true)]
async fn credentials_are_kept_while_they_are_good_and_hardly_longer() {
    let (minute, ended) = (Duration::from_mins(1), Duration::ZERO);
    for (lifetime, expected) in [
        (Some(60 * minute), 1),
        (Some(4 * minute), 2),
        (Some(ended), 2),
        (None, 6),
    ] {
        let (kept, asked) = counting(lifetime);
        for _ in 0..6 {
            assert_eq!(
                kept.provide_credentials().await.unwrap().access_key_id(),
                "AKIDEXAMPLE"
            );
            tokio::time::advance(ASK_PAUSE / 4).await;
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

#[tokio::test(start_paused = true)]
async fn credentials_that_can_not_be_renewed_serve_until_they_expire() {
    for (lifetime, serves) in [(RENEW_AHEAD / 2, true), (Duration::ZERO, false)] {
        let source = Once {
            lifetime,
            asked: AtomicUsize::default(),
        };
        let kept = KeptCredentials::new(Arc::new(source), RENEW_AHEAD);
        kept.provide_credentials().await.unwrap();
        tokio::time::advance(ASK_PAUSE).await;
        assert_eq!(kept.provide_credentials().await.is_ok(), serves);
    }
}

/// Gives credentials that are to be renewed at once, and never answers from then on.
#[derive(Debug, Default)]
struct Falling(AtomicUsize);

impl ProvideCredentials for Falling {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        if self.0.fetch_add(1, Ordering::SeqCst) > 0 {
            return future::ProvideCredentials::new(std::future::pending());
        }
        let expiry = SystemTime::now() + RENEW_AHEAD / 2;
        let credentials = Credentials::new("AKIDFIRST", "SECRET", None, Some(expiry), "test");
        future::ProvideCredentials::ready(Ok(credentials))
    }
}

const TIMEOUT: Duration = Duration::from_secs(10);

/// What was given before the source fell silent, which is to be renewed.
async fn falling() -> (Arc<Falling>, KeptCredentials) {
    let source = Arc::new(Falling::default());
    let kept = KeptCredentials::new(source.clone(), TIMEOUT);
    kept.provide_credentials().await.unwrap();
    tokio::time::advance(ASK_PAUSE).await;
    (source, kept)
}

/// How long a call waits for the credentials that are kept.
async fn wait_of(kept: &KeptCredentials) -> Duration {
    let from = Instant::now();
    let credentials = kept.provide_credentials().await.unwrap();
    assert_eq!(credentials.access_key_id(), "AKIDFIRST");
    from.elapsed()
}

#[tokio::test(start_paused = true)]
async fn after_a_renewal_that_failed_the_kept_serve_for_a_while_without_asking() {
    let (source, kept) = falling().await;
    for asked in 2..5 {
        assert!(wait_of(&kept).await >= TIMEOUT);
        assert_eq!(source.0.load(Ordering::SeqCst), asked);
        for _ in 0..3 {
            assert_eq!(wait_of(&kept).await, Duration::ZERO);
            tokio::time::advance(RENEW_PAUSE / 4).await;
        }
        assert_eq!(source.0.load(Ordering::SeqCst), asked);
        tokio::time::advance(RENEW_PAUSE).await;
    }
}

#[tokio::test(start_paused = true)]
async fn one_renews_and_others_take_what_is_kept() {
    let (source, kept) = falling().await;
    let (one, other) = tokio::join!(wait_of(&kept), wait_of(&kept));
    assert!(one >= TIMEOUT);
    assert_eq!(other, Duration::ZERO);
    assert_eq!(source.0.load(Ordering::SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn a_renewal_that_is_interrupted_has_failed() {
    let (source, kept) = falling().await;
    timeout(TIMEOUT / 2, kept.provide_credentials())
        .await
        .unwrap_err();
    assert_eq!(wait_of(&kept).await, Duration::ZERO);
    assert_eq!(source.0.load(Ordering::SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn doubted_credentials_are_renewed_if_they_are_old_enough() {
    let (kept, asked) = counting(Some(Duration::from_hours(1)));
    for (age, expected) in [(DOUBT_AFTER / 2, 1), (DOUBT_AFTER / 2, 2), (DOUBT_AFTER, 3)] {
        kept.provide_credentials().await.unwrap();
        tokio::time::advance(age).await;
        kept.doubt();
        for _ in 0..2 {
            kept.provide_credentials().await.unwrap();
        }
        assert_eq!(asked.load(Ordering::SeqCst), expected, "{age:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_who_has_credentials_is_left_without_by_a_doubt() {
    let source = Once {
        lifetime: Duration::from_hours(1),
        asked: AtomicUsize::default(),
    };
    let kept = KeptCredentials::new(Arc::new(source), TIMEOUT);
    kept.provide_credentials().await.unwrap();
    tokio::time::advance(DOUBT_AFTER).await;
    kept.doubt();
    let credentials = kept.provide_credentials().await.unwrap();
    assert_eq!(credentials.access_key_id(), "AKIDONCE");
}

#[tokio::test(start_paused = true)]
async fn credentials_that_aws_never_accepts_are_resolved_anew_once_in_a_while_and_not_for_every_call()
 {
    let (kept, asked) = counting(Some(Duration::from_hours(1)));
    for expected in 1..5 {
        for _ in 0..10 {
            kept.provide_credentials().await.unwrap();
            assert_eq!(asked.load(Ordering::SeqCst), expected);
            tokio::time::advance(FORGET_AFTER / 10).await;
            kept.forget();
        }
    }
}

/// Says after a while that there are none, and has some from then on.
#[derive(Debug, Default)]
struct Unbound(AtomicUsize);

impl ProvideCredentials for Unbound {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        let first = self.0.fetch_add(1, Ordering::SeqCst) == 0;
        future::ProvideCredentials::new(async move {
            if first {
                sleep(TIMEOUT / 2).await;
                return Err(CredentialsError::not_loaded("no role is bound"));
            }
            let credentials = Credentials::new("AKIDBOUND", "SECRET", None, None, "test");
            Ok(credentials)
        })
    }
}

#[tokio::test(start_paused = true)]
async fn many_who_wait_share_one_failure_and_after_a_pause_the_source_is_asked_again() {
    let source = Arc::new(Unbound::default());
    let asked = || source.0.load(Ordering::SeqCst);
    let kept = KeptCredentials::new(source.clone(), TIMEOUT);
    let from = Instant::now();
    let all = join_all((0..50).map(|_| kept.provide_credentials())).await;
    assert!(from.elapsed() < TIMEOUT, "one after the other");
    tokio::time::advance(ASK_PAUSE / 2).await;
    for told in all.into_iter().chain([kept.provide_credentials().await]) {
        let why = Cause::from(&told.unwrap_err());
        let words = "the credential provider was not enabled: no role is bound";
        assert_eq!(why, Cause::Credentials(words.to_owned()));
    }
    assert_eq!(asked(), 1);

    tokio::time::advance(ASK_PAUSE / 2).await;
    let credentials = kept.provide_credentials().await.unwrap();
    assert_eq!(credentials.access_key_id(), "AKIDBOUND");
    assert_eq!(asked(), 2);
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
    let kept = KeptCredentials::new(Arc::new(Silent::default()), TIMEOUT);
    let error = kept.provide_credentials().await.unwrap_err();
    let words = "credentials provider timed out after 10 seconds";
    assert_eq!(Cause::from(&error), Cause::Credentials(words.to_owned()));
    let earlier = Credentials::new("AKIDEARLIER", "SECRET", None, None, "test");
    let silent = Silent(Mutex::new(Some(earlier)));
    let kept = KeptCredentials::new(Arc::new(silent), TIMEOUT);
    assert_eq!(
        kept.provide_credentials().await.unwrap().access_key_id(),
        "AKIDEARLIER"
    );
}
