//! A role that is assumed before anything is called: the credentials of an identity that names one.
//!
//! It promises that STS is asked with the role, the external id and the role session name of the identity and with
//! nothing else, in the Region that it is given, and that a refusal keeps STS's own code and words.

use std::fmt;
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::sts::AssumeRoleProvider;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region};
use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider, future};
use aws_sdk_ssm::config::SharedHttpClient;
use tokio::sync::OnceCell;

use super::classify::{ASSUME_ROLE, Cause, classify};
use super::metrics::{Call, Metrics, Outcome};
use crate::broker::Role;

/// How STS is called.
pub(super) struct StsOptions {
    /// Where it is, and for which requests are signed.
    pub(super) region: String,
    /// None for what the environment says (`AWS_ENDPOINT_URL_STS`), else the Region's public one.
    pub(super) endpoint: Option<String>,
    pub(super) http: SharedHttpClient,
    pub(super) behaviour: BehaviorVersion,
    pub(super) connect_timeout: Duration,
    /// One attempt. The SDK may make three: a role that is assumed twice is no harm.
    pub(super) attempt_timeout: Duration,
    /// The longest pause before a second attempt; it doubles before the third.
    pub(super) retry_pause: Duration,
    pub(super) metrics: Metrics,
}

/// Assumes a role each time that it is asked; others keep what it gives.
pub(super) struct AssumedRole {
    role: Role,
    /// With which STS is called. It is asked anew for each call of STS, and so may change.
    own: SharedCredentialsProvider,
    sts: StsOptions,
    provider: OnceCell<AssumeRoleProvider>,
}

impl AssumedRole {
    /// A role that is assumed with the credentials of `own`.
    pub(super) fn new(role: Role, own: SharedCredentialsProvider, sts: StsOptions) -> Self {
        Self {
            role,
            own,
            sts,
            provider: OnceCell::new(),
        }
    }

    async fn resolve(&self) -> Result<Credentials, CredentialsError> {
        let tried = self.sts.metrics.begin(Call::AssumeRole);
        let provider = self.provider.get_or_init(|| self.build()).await;
        let given = provider.provide_credentials().await;
        tried.end(match &given {
            Ok(_) => Outcome::Success,
            Err(error) => classify(ASSUME_ROLE, Cause::from(error)).kind.into(),
        });
        given
    }

    async fn build(&self) -> AssumeRoleProvider {
        let StsOptions {
            region,
            endpoint,
            http,
            behaviour,
            connect_timeout,
            attempt_timeout,
            retry_pause,
            metrics: _,
        } = &self.sts;
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(*connect_timeout)
            .operation_attempt_timeout(*attempt_timeout)
            .build();
        let mut config = aws_config::defaults(*behaviour)
            .region(Region::new(region.clone()))
            .http_client(http.clone())
            .timeout_config(timeouts)
            .retry_config(RetryConfig::standard().with_initial_backoff(*retry_pause))
            .credentials_provider(self.own.clone());
        if let Some(endpoint) = endpoint {
            config = config.endpoint_url(endpoint);
        }
        let Role {
            arn,
            external_id,
            session_name,
        } = &self.role;
        let mut provider = AssumeRoleProvider::builder(arn)
            .session_name(session_name)
            .configure(&config.load().await);
        if let Some(external_id) = external_id {
            provider = provider.external_id(external_id);
        }
        provider.build().await
    }
}

impl ProvideCredentials for AssumedRole {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.resolve())
    }
}

impl fmt::Debug for AssumedRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AssumedRole([redacted])")
    }
}
