//! What becomes of a call whose credentials fail.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use aws_config::meta::credentials::CredentialsProviderChain;
use aws_credential_types::Credentials;
use aws_credential_types::credential_fn::provide_credentials_fn;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider, future};

use super::server::{Answer, Server};
use super::{identity, keys, later, options, request, session, ticket};
use crate::aws::credentials::{DOUBT_AFTER, FORGET_AFTER};
use crate::aws::{AwsBroker, AwsOptions};
use crate::broker::{Broker, ErrorKind, StreamUrl, UrlPolicy};

fn broker(source: impl ProvideCredentials + 'static) -> AwsBroker {
    let credentials = Some(SharedCredentialsProvider::new(source));
    AwsBroker::new(AwsOptions {
        credentials,
        ..options()
    })
}

/// A provider that has no credentials.
#[derive(Debug)]
struct Without;

impl ProvideCredentials for Without {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::ready(Err(CredentialsError::not_loaded("no role is bound")))
    }
}

#[tokio::test]
async fn without_credentials_nothing_is_sent_and_nothing_is_signed() {
    let server = Server::start([ticket()]).await;
    let (broker, identity) = (broker(Without), identity(&server));
    let url = StreamUrl::check("ws://127.0.0.1/x", &identity, UrlPolicy::Insecure).unwrap();
    let start = broker.start(&identity, &request()).await.unwrap_err();
    let sign = broker.sign_upgrade(&identity, &url).await.unwrap_err();
    for error in [start, sign] {
        assert_eq!(error.kind, ErrorKind::CredentialsUnavailable, "{error}");
        assert!(error.message.contains("no role is bound"), "{error}");
    }
    assert_eq!(server.requests().len(), 0);
}

#[tokio::test]
async fn what_each_provider_of_the_chain_said_is_told_and_only_its_first_line() {
    let without_file = || async {
        let words = "no token file is mounted\nx-amz-security-token: SECRET";
        Err(CredentialsError::not_loaded(words))
    };
    let chain = CredentialsProviderChain::first_try("Environment", Without)
        .or_else("WebIdentityToken", provide_credentials_fn(without_file));
    let server = Server::start([ticket()]).await;
    let error = broker(chain).start(&identity(&server), &request()).await;
    let said = error.unwrap_err().message;
    assert!(said.contains("Environment: "), "{said}");
    assert!(
        said.contains("no role is bound; WebIdentityToken: "),
        "{said}"
    );
    assert!(said.ends_with("no token file is mounted"), "{said}");
}

/// Gives other credentials each time, good for an hour.
#[derive(Debug, Default)]
struct Renewing(AtomicUsize);

impl ProvideCredentials for Renewing {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        let key = format!("AKID{}", self.0.fetch_add(1, Ordering::SeqCst));
        let expiry = SystemTime::now() + Duration::from_hours(1);
        let credentials = Credentials::new(key, "SECRET", None, Some(expiry), "test");
        future::ProvideCredentials::ready(Ok(credentials))
    }
}

#[tokio::test]
async fn credentials_are_kept_between_calls_until_aws_refuses_them() {
    let expired = Answer::error(400, "ExpiredTokenException", "expired");
    let server = Server::start([ticket(), ticket(), expired, ticket()]).await;
    let (broker, identity) = (broker(Renewing::default()), identity(&server));
    broker.start(&identity, &request()).await.unwrap();
    broker.resume(&identity, &session()).await.unwrap();
    later(FORGET_AFTER).await;
    let error = broker.start(&identity, &request()).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::CredentialsUnavailable);
    broker.start(&identity, &request()).await.unwrap();
    assert_eq!(keys(&server), ["AKID0", "AKID0", "AKID0", "AKID1"]);
}

/// As after "Revoke active sessions" of IAM: what was handed out until then is denied everything.
#[tokio::test]
async fn credentials_that_are_denied_a_call_are_renewed_once_a_minute() {
    let server = Server::start([Answer::error(400, "AccessDeniedException", "no")]).await;
    let (broker, identity) = (broker(Renewing::default()), identity(&server));
    for _minute in 0..2 {
        for _ in 0..2 {
            let error = broker.resume(&identity, &session()).await.unwrap_err();
            assert_eq!(error.kind, ErrorKind::AccessDenied);
        }
        later(DOUBT_AFTER).await;
    }
    broker.resume(&identity, &session()).await.unwrap_err();
    broker.resume(&identity, &session()).await.unwrap_err();
    // The third call is denied with credentials that are a minute old, and so is the sixth.
    assert_eq!(
        keys(&server),
        ["AKID0", "AKID0", "AKID0", "AKID1", "AKID1", "AKID2"]
    );
}
