//! The broker over the AWS SDK.
//!
//! It promises what [`Broker`] promises: StartSession is sent once; everything else at most three times; all
//! calls of an identity in this process share one rate limiter; and no token, credential or stream URL is logged
//! or part of an error, whatever the log's level.

mod chain;
mod classify;
mod client;
mod clients;
mod convert;
mod credentials;
mod http;
mod limiter;
mod metrics;
mod mute;
mod role;
mod sign;

#[cfg(test)]
mod classify_tests;
#[cfg(test)]
mod credentials_tests;
#[cfg(test)]
mod tests;

use std::time::Duration;

use aws_credential_types::provider::SharedCredentialsProvider;
use futures::FutureExt;
use futures::future::BoxFuture;

use crate::broker::{
    Broker, BrokerError, ErrorKind, Filter, Identity, SessionId, SessionPage, SessionState,
    SignedHeaders, StartRequest, StreamUrl, Ticket,
};
use crate::proxy::Proxies;
use client::Operation;
use clients::Clients;
pub use metrics::Metrics;

/// The most that DescribeSessions gives at once.
const PAGE_SESSIONS_MAX: i32 = 200;

/// How AWS is called; the same for every identity.
#[derive(Clone)]
pub struct AwsOptions {
    /// Until a TCP connection is there. A Region is never farther away than a second.
    pub connect_timeout: Duration,
    /// Until credentials are resolved; the default chain may ask several places.
    pub credentials_timeout: Duration,
    /// One attempt, with connecting, credentials and the whole answer.
    pub attempt_timeout: Duration,
    /// A call as a whole: its wait in the rate limiter and all its attempts.
    pub call_timeout: Duration,
    /// The longest pause before a second attempt; it doubles before the third.
    pub retry_pause: Duration,
    /// What one identity may send. AWS documents no rates; this is low enough to be throttled seldom.
    pub calls_per_second: u32,
    /// What one identity may send at once after a quiet time: the sessions of a relay that restarts.
    pub calls_burst: u32,
    /// Takes the place of the SDK's default chain: a role is assumed with these too.
    pub credentials: Option<SharedCredentialsProvider>,
    /// The Region that the process runs in, if it is known: STS is asked there, for an identity of the same partition.
    pub region: Option<String>,
    /// URL of STS, where roles are assumed. `None` is what the SDK's environment says (`AWS_ENDPOINT_URL_STS`), or else
    /// the Region's public one.
    pub sts_endpoint: Option<String>,
    /// The ways to AWS, for the calls and for credentials.
    pub proxies: Proxies,
    /// What is counted.
    pub metrics: Metrics,
}

impl Default for AwsOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            credentials_timeout: Duration::from_secs(10),
            attempt_timeout: Duration::from_secs(15),
            call_timeout: Duration::from_secs(30),
            retry_pause: Duration::from_millis(500),
            calls_per_second: 10,
            calls_burst: 20,
            credentials: None,
            region: None,
            sts_endpoint: None,
            proxies: Proxies::default(),
            metrics: Metrics::default(),
        }
    }
}

/// [`Broker`] over the AWS SDK. Cheap until an identity is used for the first time.
pub struct AwsBroker {
    clients: Clients,
}

impl AwsBroker {
    /// A broker for every identity that it is asked for.
    #[must_use]
    pub fn new(options: AwsOptions) -> Self {
        Self {
            clients: Clients::new(options),
        }
    }
}

impl Broker for AwsBroker {
    fn start<'a>(
        &'a self,
        identity: &'a Identity,
        request: &'a StartRequest,
    ) -> BoxFuture<'a, Result<Ticket, BrokerError>> {
        async move {
            let StartRequest {
                target,
                document,
                parameters,
                reason,
            } = request;
            let client = self.clients.of(identity).await;
            let send = || {
                let parameters = parameters.clone().into_iter().collect();
                client
                    .ssm
                    .start_session()
                    .target(target)
                    .document_name(document)
                    .reason(reason)
                    .set_parameters(Some(parameters))
                    .send()
            };
            convert::started(client.call(Operation::START, send).await?)
        }
        .boxed()
    }

    fn resume<'a>(
        &'a self,
        identity: &'a Identity,
        session: &'a SessionId,
    ) -> BoxFuture<'a, Result<Ticket, BrokerError>> {
        async move {
            let client = self.clients.of(identity).await;
            let send = || {
                client
                    .ssm
                    .resume_session()
                    .session_id(session.as_str())
                    .send()
            };
            convert::resumed(session, client.call(Operation::RESUME, send).await?)
        }
        .boxed()
    }

    fn terminate<'a>(
        &'a self,
        identity: &'a Identity,
        session: &'a SessionId,
    ) -> BoxFuture<'a, Result<(), BrokerError>> {
        async move {
            let client = self.clients.of(identity).await;
            let send = || {
                client
                    .ssm
                    .terminate_session()
                    .session_id(session.as_str())
                    .send()
            };
            match client.call(Operation::TERMINATE, send).await {
                Ok(_) => Ok(()),
                Err(error) if error.kind == ErrorKind::Gone => Ok(()),
                Err(error) => Err(error),
            }
        }
        .boxed()
    }

    fn describe<'a>(
        &'a self,
        identity: &'a Identity,
        state: SessionState,
        filters: &'a [Filter],
        next_token: Option<&'a str>,
    ) -> BoxFuture<'a, Result<SessionPage, BrokerError>> {
        async move {
            let filters = convert::filters(filters)?;
            let client = self.clients.of(identity).await;
            let send = || {
                client
                    .ssm
                    .describe_sessions()
                    .state(convert::state(state))
                    .max_results(PAGE_SESSIONS_MAX)
                    .set_filters(filters.clone())
                    .set_next_token(next_token.map(str::to_owned))
                    .send()
            };
            Ok(convert::page(client.call(Operation::DESCRIBE, send).await?))
        }
        .boxed()
    }

    fn sign_upgrade<'a>(
        &'a self,
        identity: &'a Identity,
        url: &'a StreamUrl,
    ) -> BoxFuture<'a, Result<SignedHeaders, BrokerError>> {
        async move { self.clients.of(identity).await.sign_upgrade(url).await }.boxed()
    }
}
