//! The SDK client, the limiter and the credentials of one identity, and the loop in which every call runs.
//!
//! It promises that the SDK itself never retries, so that no forgotten setting can start a session twice; that
//! every attempt passes the limiter; that a call ends within its deadline; and that the SDK runs muted, since
//! at TRACE it prints whole answers with their tokens.

use std::error::Error;
use std::future::Future;
use std::sync::Arc;
use std::time::SystemTime;

use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use aws_sdk_ssm::config::http::HttpResponse;
use aws_sdk_ssm::config::retry::RetryConfig;
use aws_sdk_ssm::config::timeout::TimeoutConfig;
use aws_sdk_ssm::config::{
    AppName, BehaviorVersion, IdentityCache, Region, SharedHttpClient,
    StalledStreamProtectionConfig,
};
use aws_sdk_ssm::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_ssm::operation;
use tokio::time::{Instant, sleep, timeout_at};
use tracing::field::Empty;
use tracing::instrument::WithSubscriber;
use tracing::{Instrument as _, Span, info_span};

use super::AwsOptions;
use super::chain::DefaultChain;
use super::classify::{Cause, classify, id_in};
use super::credentials::KeptCredentials;
use super::limiter::{Lane, Limiter, Overdue};
use super::metrics::{Call, Outcome};
use super::mute::mute;
use super::role::{AssumedRole, StsOptions};
use super::sign;
use crate::backoff::delay;
use crate::broker::{BrokerError, ErrorKind, Identity, Next, RequestId, SignedHeaders, StreamUrl};

/// The SDK's defaults as of this date, so that an update of the SDK changes none of them.
fn behaviour() -> BehaviorVersion {
    BehaviorVersion::v2026_01_12()
}

/// A call of the API: its name, its queue, and how often it may be sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Operation {
    pub(super) name: &'static str,
    call: Call,
    pub(super) lane: Lane,
    attempts_max: u32,
}

impl Operation {
    /// Once: a second StartSession may leave a second session.
    pub(super) const START: Self = Self {
        name: "StartSession",
        call: Call::StartSession,
        lane: Lane::Session,
        attempts_max: 1,
    };
    pub(super) const RESUME: Self = Self {
        name: "ResumeSession",
        call: Call::ResumeSession,
        lane: Lane::Session,
        attempts_max: 3,
    };
    pub(super) const TERMINATE: Self = Self {
        name: "TerminateSession",
        call: Call::TerminateSession,
        lane: Lane::End,
        attempts_max: 3,
    };
    pub(super) const DESCRIBE: Self = Self {
        name: "DescribeSessions",
        call: Call::DescribeSessions,
        lane: Lane::Page,
        attempts_max: 3,
    };
}

/// The client of one identity.
pub(super) struct Client {
    pub(super) ssm: aws_sdk_ssm::Client,
    limiter: Limiter,
    credentials: Arc<KeptCredentials>,
    /// What is wrong with the endpoint: then nothing is sent.
    wrong: Option<&'static str>,
    pub(super) region: String,
    options: AwsOptions,
}

impl Client {
    /// Region, endpoint and role are the identity's alone: the environment and profiles give credentials only, those
    /// with which a role is assumed among them, and say where STS is.
    pub(super) fn new(identity: &Identity, options: &AwsOptions, http: &SharedHttpClient) -> Self {
        let sts_region = identity.sts_region(options.region.as_deref());
        let Identity {
            region,
            ssm_endpoint,
            ssmmessages_endpoint: _,
            role,
        } = identity;
        let own: Arc<dyn ProvideCredentials> = match &options.credentials {
            Some(source) => Arc::new(source.clone()),
            None => Arc::new(DefaultChain::new(sts_region, http.clone(), behaviour())),
        };
        let source: Arc<dyn ProvideCredentials> = match role {
            Some(role) => {
                let sts = StsOptions {
                    region: sts_region.to_owned(),
                    endpoint: options.sts_endpoint.clone(),
                    http: http.clone(),
                    behaviour: behaviour(),
                    connect_timeout: options.connect_timeout,
                    // Time for a second attempt.
                    attempt_timeout: options.credentials_timeout / 2,
                    retry_pause: options.retry_pause,
                    metrics: options.metrics.clone(),
                };
                Arc::new(AssumedRole::new(role.clone(), own.into(), sts))
            }
            None => own,
        };
        let credentials = Arc::new(KeptCredentials::new(source, options.credentials_timeout));
        let provider: Arc<dyn ProvideCredentials> = credentials.clone();
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(options.connect_timeout)
            .operation_attempt_timeout(options.attempt_timeout)
            .build();
        let mut config = aws_sdk_ssm::Config::builder()
            .behavior_version(behaviour())
            .region(Region::new(region.clone()))
            .credentials_provider(SharedCredentialsProvider::from(provider))
            .identity_cache(IdentityCache::no_cache())
            .http_client(http.clone())
            .timeout_config(timeouts)
            .retry_config(RetryConfig::disabled())
            // Answers are a few KiB, and the time of an attempt bounds them.
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
        config.set_endpoint_url(ssm_endpoint.clone());
        config.set_app_name(AppName::new("ssm-session-operator").ok());
        Self {
            ssm: aws_sdk_ssm::Client::from_conf(config.build()),
            limiter: Limiter::new(options.calls_per_second, options.calls_burst),
            credentials,
            wrong: ssm_endpoint.as_deref().and_then(wrong_endpoint),
            region: region.clone(),
            options: options.clone(),
        }
    }

    /// Sends a call, and sends it again when it may be and the failure says so; in a span of its own.
    pub(super) async fn call<O, E, F>(
        &self,
        operation: Operation,
        send: impl Fn() -> F + Send + Sync,
    ) -> Result<O, BrokerError>
    where
        F: Future<Output = Result<O, SdkError<E, HttpResponse>>> + Send,
        O: operation::RequestId,
        E: ProvideErrorMetadata + Error + 'static,
    {
        let span = info_span!(
            "call AWS",
            otel.name = operation.name,
            otel.kind = "client",
            rpc.system = "aws-api",
            rpc.method = operation.name,
            cloud.region = self.region,
            aws.request_id = Empty,
            error.type = Empty,
            otel.status_description = Empty,
        );
        let result = self.send(operation, send, &span);
        let result = result.instrument(span.clone()).await;
        if let Err(error) = &result {
            span.record("error.type", tracing::field::debug(error.kind));
            span.record("otel.status_description", error.summary());
        }
        result
    }

    async fn send<O, E, F>(
        &self,
        operation: Operation,
        send: impl Fn() -> F + Send + Sync,
        span: &Span,
    ) -> Result<O, BrokerError>
    where
        F: Future<Output = Result<O, SdkError<E, HttpResponse>>> + Send,
        O: operation::RequestId,
        E: ProvideErrorMetadata + Error + 'static,
    {
        if let Some(wrong) = self.wrong {
            return Err(classify(
                operation.name,
                Cause::Construction(wrong.to_owned()),
            ));
        }
        let deadline = Instant::now() + self.options.call_timeout;
        // A first attempt that starts has all its time: one cut short may leave a session that nobody knows.
        let attempt_timeout = self.options.attempt_timeout;
        let mut start_by = deadline - attempt_timeout.min(self.options.call_timeout / 2);
        let mut attempt = 1;
        loop {
            let turn = self.limiter.turn(operation.lane, start_by).await;
            if turn == Err(Overdue) {
                self.options.metrics.unsent(operation.call);
                return Err(overdue(operation));
            }
            let tried = self.options.metrics.begin(operation.call);
            let answer = timeout_at(deadline, send().with_subscriber(mute().clone())).await;
            let id = answer
                .as_ref()
                .map_or_else(|_elapsed| RequestId::default(), id_in);
            if let Some(id) = id.as_str() {
                span.record("aws.request_id", id);
            }
            let cause = match answer {
                Ok(Ok(output)) => {
                    tried.end(Outcome::Success);
                    let (operation, request_id) = (operation.name, id.as_str());
                    tracing::debug!(operation, request_id, attempt, "AWS has answered");
                    return Ok(output);
                }
                Ok(Err(error)) => Cause::from(&error),
                Err(_elapsed) => Cause::Timeout,
            };
            let error = classify(operation.name, cause);
            tried.end(error.kind.into());
            self.learn(error.kind);
            let request_id = error.request_id.as_str();
            tracing::debug!(%error, request_id, attempt, "a call of AWS failed");
            let pause = delay(self.options.retry_pause, self.options.call_timeout, attempt);
            let again = attempt < operation.attempts_max && error.kind.next() == Next::Retry;
            if !again || Instant::now() + pause >= deadline {
                return Err(error);
            }
            tracing::debug!(?pause, "the call is sent again after a pause");
            sleep(pause).await;
            start_by = deadline;
            attempt += 1;
        }
    }

    /// What a failure means for the calls that follow.
    fn learn(&self, kind: ErrorKind) {
        match kind {
            ErrorKind::Throttled => self.limiter.throttled(),
            ErrorKind::CredentialsUnavailable => self.credentials.forget(),
            ErrorKind::AccessDenied => self.credentials.doubt(),
            ErrorKind::InvalidDocument
            | ErrorKind::InvalidRequest
            | ErrorKind::TargetNotConnected
            | ErrorKind::Unavailable
            | ErrorKind::Gone => {}
        }
    }

    /// Signs the upgrade to `url`, with credentials resolved for it.
    pub(super) async fn sign_upgrade(&self, url: &StreamUrl) -> Result<SignedHeaders, BrokerError> {
        let resolving = self
            .credentials
            .provide_credentials()
            .with_subscriber(mute().clone());
        match resolving.await {
            Ok(credentials) => {
                sign::sign_upgrade(credentials, &self.region, url, SystemTime::now())
            }
            Err(error) => Err(classify(sign::OPERATION, Cause::from(&error))),
        }
    }
}

/// The SDK would find out too, but only in words that can't be told from those of a lost connection.
fn wrong_endpoint(endpoint: &str) -> Option<&'static str> {
    let wrong = Some("the endpoint of ssm is no http:// or https:// URL of a host");
    let Ok(uri) = endpoint.parse::<http::Uri>() else {
        return wrong;
    };
    let scheme = matches!(uri.scheme_str(), Some("http" | "https"));
    let host = uri
        .authority()
        .is_some_and(|authority| !authority.as_str().contains('@'));
    if scheme && host { None } else { wrong }
}

/// A call that was not sent.
fn overdue(operation: Operation) -> BrokerError {
    BrokerError::new(
        ErrorKind::Throttled,
        operation.name,
        "too many calls are waiting in our own rate limiter; nothing was sent",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_an_http_url_without_user() {
        for sound in [
            "http://127.0.0.1:8080",
            "https://ssm.example",
            "https://ssm.example/path/",
        ] {
            assert_eq!(wrong_endpoint(sound), None, "{sound}");
        }
        for wrong in [
            "",
            "not a url",
            "ssm.example",
            "ftp://ssm.example",
            "https://a:b@ssm.example",
        ] {
            assert!(wrong_endpoint(wrong).is_some(), "{wrong}");
        }
    }
}
