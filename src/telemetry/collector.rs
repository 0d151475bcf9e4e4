//! The way to the collector of traces: HTTP with a deadline, and a word in the log when it begins or ends to fail.

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
use tokio::time::timeout;
use tokio_rustls::rustls::ClientConfig;
use tracing::{info, warn};

/// How long one request may take, its answer included.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// An answer says which spans were refused, in a line or two.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// A client for requests from a thread that no runtime drives.
pub(super) struct Collector {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    runtime: Handle,
    /// Whether the last request was taken, as far as the log knows.
    takes: AtomicBool,
}

impl fmt::Debug for Collector {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Collector")
    }
}

impl Collector {
    pub(super) fn new(tls: ClientConfig, runtime: Handle) -> Self {
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .build();
        Self {
            client: Client::builder(TokioExecutor::new()).build(connector),
            runtime,
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
        let sending = self.client.request(request.map(Full::new));
        let exchange = async move {
            let (head, body) = sending.await?.into_parts();
            let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await?;
            Ok::<_, HttpError>(Response::from_parts(head, body.to_bytes()))
        };
        let exchange = async move { timeout(REQUEST_TIMEOUT, exchange).await };
        let answer = match self.runtime.spawn(exchange).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(format!("no answer within {REQUEST_TIMEOUT:?}").into()),
            Err(ended) => Err(ended.into()),
        };
        match &answer {
            Ok(answer) if answer.status().is_success() => self.note(None),
            Ok(answer) => self.note(Some(&answer.status().to_string())),
            Err(error) => self.note(Some(&words(error.as_ref()))),
        }
        answer
    }
}

/// An error with what is behind it: the client's own says no more than that it failed.
fn words(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |words, cause| {
        format!("{words}: {cause}")
    })
}
