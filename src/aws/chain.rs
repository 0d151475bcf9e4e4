//! The SDK's default chain of credentials: the environment, profiles, IRSA, Pod Identity, instance metadata.
//!
//! It promises that STS is asked in the Region that it is given, that what changes in files is read again, and that a token's
//! file that can't be read is named.

use std::error::Error;
use std::fs::File;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::{fmt, io};

use aws_config::default_provider::credentials::DefaultCredentialsChain;
use aws_config::provider_config::ProviderConfig;
use aws_config::{BehaviorVersion, Region};
use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, future};
use aws_sdk_ssm::config::SharedHttpClient;

/// The variables that name a token's file, for IRSA and for Pod Identity, in the SDK's order.
const TOKEN_FILES: [&str; 2] = [
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
];

/// The SDK's default chain, also of what changes while it is used.
///
/// The SDK reads the files of profiles once for each chain, and remembers that they were missing. So a chain is used
/// again only while it gives credentials that end: what has no end, or could not be had, may be in another file soon.
pub(super) struct DefaultChain {
    /// STS is asked there.
    sts_region: Region,
    http: SharedHttpClient,
    behaviour: BehaviorVersion,
    /// Remembers, too, what instance metadata gave before they were out of reach.
    chain: std::sync::Mutex<Option<Arc<DefaultCredentialsChain>>>,
}

impl DefaultChain {
    /// A chain that is made when it is first needed.
    pub(super) fn new(
        sts_region: &str,
        http: SharedHttpClient,
        behaviour: BehaviorVersion,
    ) -> Self {
        Self {
            sts_region: Region::new(sts_region.to_owned()),
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
        resolved.map_err(with_file)
    }

    async fn build(&self) -> DefaultCredentialsChain {
        let config = ProviderConfig::without_region()
            .with_behavior_version(Some(self.behaviour))
            .with_http_client(self.http.clone());
        DefaultCredentialsChain::builder()
            .configure(config)
            .region(self.sts_region.clone())
            .build()
            .await
    }
}

/// The SDK says why a file can't be read, and not which.
fn with_file(error: CredentialsError) -> CredentialsError {
    let of_file = error.source().is_some_and(<dyn Error>::is::<io::Error>);
    let unread = TOKEN_FILES.iter().find_map(|variable| {
        let file = std::env::var_os(variable)?;
        let why = File::open(&file).err()?;
        Some(format!("{variable}, {}: {why}", file.display()))
    });
    match unread.filter(|_| of_file) {
        Some(unread) => CredentialsError::provider_error(unread),
        None => error,
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
