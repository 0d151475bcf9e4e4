//! The way to the collector of traces: HTTP with a deadline, and a word in the log when it begins or ends to fail.
//!
//! A request is sent once. What is not taken is dropped: traces of a bad minute are not worth the ones that come after it.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use opentelemetry_http::{HttpClient, HttpError};
use tokio::runtime::Handle;
use tokio::time::sleep;
use tokio_rustls::rustls::ClientConfig;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::words::with_causes;

/// How long one request may take, its answer included.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a request may still take when the process ends: a collector that is there answers in milliseconds, and nobody
/// waits for one that is not.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(1);

/// An answer says which spans were refused, in a line or two.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// A client for requests from a thread that no runtime drives.
pub(super) struct Collector {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    runtime: Handle,
    /// Cancelled when the process ends.
    leaving: CancellationToken,
    /// The process ends, and the collector did not answer any more.
    given_up: AtomicBool,
    /// Whether the last request was taken, as far as the log knows.
    takes: AtomicBool,
}

impl fmt::Debug for Collector {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Collector")
    }
}

impl Collector {
    /// Once `leaving` is cancelled, requests have little time, and the first that is not answered is the last.
    pub(super) fn new(tls: ClientConfig, runtime: Handle, leaving: CancellationToken) -> Self {
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .build();
        Self {
            client: Client::builder(TokioExecutor::new()).build(connector),
            runtime,
            leaving,
            given_up: AtomicBool::new(false),
            takes: AtomicBool::new(true),
        }
    }

    /// Says what is new about the collector.
    fn note(&self, trouble: Option<&str>) {
        let takes = trouble.is_none();
        if self.takes.swap(takes, Ordering::Relaxed) == takes {
            return;
        }
        if let Some(why) = trouble {
            warn!(
                why,
                "the collector takes no spans: they are dropped until it does, and all else goes on"
            );
        } else {
            info!("the collector takes spans again");
        }
    }
}

#[async_trait::async_trait]
impl HttpClient for Collector {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        if self.given_up.load(Ordering::Relaxed) {
            return Err("the collector does not answer, and the process ends".into());
        }
        let sending = self.client.request(request.map(Full::new));
        let exchange = async move {
            let (head, body) = sending.await?.into_parts();
            let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await?;
            Ok::<_, HttpError>(Response::from_parts(head, body.to_bytes()))
        };
        let exchange = in_time(exchange, self.leaving.clone());
        let answer = match self.runtime.spawn(exchange).await {
            Ok(answer) => answer,
            Err(ended) => Err(ended.into()),
        };
        match &answer {
            Ok(answer) if answer.status().is_success() => self.note(None),
            Ok(answer) => self.note(Some(&answer.status().to_string())),
            Err(error) => {
                let leaving = self.leaving.is_cancelled();
                self.given_up.store(leaving, Ordering::Relaxed);
                // The client's own words say no more than that it failed.
                self.note(Some(&with_causes(error.as_ref())));
            }
        }
        answer
    }
}

/// The answer, if it comes before the deadline, which is nearer once the process is `leaving`.
async fn in_time<T>(
    exchange: impl Future<Output = Result<T, HttpError>>,
    leaving: CancellationToken,
) -> Result<T, HttpError> {
    let left = async {
        leaving.cancelled().await;
        sleep(LEAVE_TIMEOUT).await;
    };
    let late = tokio::select! {
        answer = exchange => return answer,
        () = sleep(REQUEST_TIMEOUT) => REQUEST_TIMEOUT,
        () = left => LEAVE_TIMEOUT,
    };
    Err(format!("no answer within {late:?}").into())
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::time::Instant;

    use super::*;

    /// When a request that nobody answers is given up, if the process ends after `leaves`.
    async fn given_up_after(leaves: Duration) -> Duration {
        let (leaving, began) = (CancellationToken::new(), Instant::now());
        let exchange = tokio::spawn(in_time(pending::<Result<(), HttpError>>(), leaving.clone()));
        sleep(leaves).await;
        leaving.cancel();
        let error = exchange.await.unwrap().unwrap_err().to_string();
        assert!(error.starts_with("no answer within "), "{error}");
        began.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_has_its_time_and_at_the_end_of_the_process_little_of_it() {
        let seconds = async |leaves| {
            let leaves = Duration::from_secs(leaves);
            given_up_after(leaves).await.as_secs()
        };
        assert_eq!(seconds(0).await, 1);
        assert_eq!(seconds(4).await, 5);
        assert_eq!(seconds(60).await, 60, "it was over long before");
    }
}
