//! Traces: the few spans that are worth a look, by OTLP over HTTP to a collector.
//!
//! Only what [`SPANS`] names leaves the process: a span of a library, which may show what it sees, does not. Nobody waits
//! for the collector: spans wait in a queue that has an end, and beyond it they are dropped. At the end of the process one
//! that answers gets the last of them, and one that does not costs a second.

use std::time::Duration;

use anyhow::Context as _;
use http::Uri;
use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{
    Protocol, RetryPolicy, SpanExporter, WithExportConfig as _, WithHttpConfig as _,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracerProvider,
};
use tokio::runtime::Handle;
use tokio_rustls::rustls::ClientConfig;
use tokio_util::sync::CancellationToken;
use tracing::{Metadata, Subscriber, warn};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::registry::LookupSpan;

use super::collector::Collector;

/// The spans that are traced, and so the review of what they tell: the names of Kubernetes objects, ids of AWS sessions
/// and of requests, Regions, targets, and kinds of errors; no token, no credential, and no words of others.
pub const SPANS: [&str; 5] = [
    "reconcile",
    "call AWS",
    "start session",
    "open websocket",
    "handshake",
];

/// Where our spans come from, and nobody else's.
const TARGET: &str = "ssm_session_operator";

/// Where the collector takes traces, behind its endpoint.
const PATH: &str = "/v1/traces";

/// Spans that wait for the collector: some MB at most, and what a busy operator makes in a minute.
const QUEUE_SPANS_MAX: usize = 2048;

/// Spans of one request.
const BATCH_SPANS_MAX: usize = 512;

/// How long a collector that answers may take for the last spans, five requests at most: a pod has 15 s more than the
/// program's own deadline. One that does not answer is given up much sooner.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);

/// Where spans go, and how many.
#[derive(Clone, Debug)]
pub struct TraceOptions {
    /// The collector, `http://` or `https://`, without the path of traces.
    pub endpoint: Uri,
    /// How many of the traces are sent, 0 to 1.
    pub sampling: f64,
    /// The operator's namespace.
    pub namespace: String,
    /// The name of the pod or host.
    pub instance: String,
    /// For a collector with `https://`.
    pub tls: ClientConfig,
}

/// What makes spans and sends them.
pub struct Traces {
    provider: SdkTracerProvider,
    leaving: CancellationToken,
}

impl Traces {
    /// Sends spans from now on; requests to the collector run on this runtime.
    ///
    /// # Errors
    /// When variables of OpenTelemetry ask for what is not to be had.
    pub fn new(options: TraceOptions, runtime: Handle) -> anyhow::Result<Self> {
        let TraceOptions {
            endpoint,
            sampling,
            namespace,
            instance,
            tls,
        } = options;
        let url = format!("{}{PATH}", endpoint.to_string().trim_end_matches('/'));
        let leaving = CancellationToken::new();
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(Collector::new(tls, runtime, leaving.clone()))
            // Between tries its thread would sleep, deaf to the end of the process.
            .with_retry_policy(RetryPolicy::disabled())
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(url)
            .build()
            .context("sending traces")?;
        let config = BatchConfigBuilder::default()
            .with_max_queue_size(QUEUE_SPANS_MAX)
            .with_max_export_batch_size(BATCH_SPANS_MAX)
            .build();
        let batches = BatchSpanProcessor::builder(exporter)
            .with_batch_config(config)
            .build();
        // With OTEL_RESOURCE_ATTRIBUTES, such as the cluster's name.
        let resource = Resource::builder()
            .with_attributes([
                KeyValue::new("service.name", env!("CARGO_PKG_NAME")),
                KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
                KeyValue::new("service.instance.id", instance),
                KeyValue::new("k8s.namespace.name", namespace),
            ])
            .build();
        let sampler = Sampler::TraceIdRatioBased(sampling);
        let provider = SdkTracerProvider::builder()
            .with_span_processor(batches)
            .with_resource(resource)
            .with_sampler(Sampler::ParentBased(Box::new(sampler)))
            .build();
        Ok(Self { provider, leaving })
    }

    /// What hands spans over.
    pub(super) fn layer<S>(&self) -> impl Layer<S> + Send + Sync + use<S>
    where
        S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
    {
        tracing_opentelemetry::layer()
            .with_tracer(self.provider.tracer(TARGET))
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_tracked_inactivity(false)
            .with_filter(filter_fn(is_traced))
    }

    /// Sends what waits, for a second if the collector does not answer. For a thread that may block, while the runtime
    /// still runs.
    pub fn finish(&self) {
        if let Err(error) = self.send_the_last() {
            warn!(%error, "the last spans were not sent");
        }
    }

    /// An error means that the collector was still being waited for.
    fn send_the_last(&self) -> OTelSdkResult {
        self.leaving.cancel();
        self.provider.shutdown_with_timeout(FLUSH_TIMEOUT)
    }
}

/// Whether this is a span that leaves the process.
pub(super) fn is_traced(metadata: &Metadata<'_>) -> bool {
    metadata.is_span() && metadata.target().starts_with(TARGET) && SPANS.contains(&metadata.name())
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::Arc;

    use axum::Router;
    use axum::extract::State;
    use axum::http::StatusCode;
    use axum::routing::post;
    use tokio::net::TcpListener;
    use tokio::sync::watch;
    use tokio_rustls::rustls::RootCertStore;
    use tracing::info_span;
    use tracing_subscriber::Registry;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    /// What a collector does with each request.
    #[derive(Clone, Copy)]
    enum Answer {
        Never,
        With(StatusCode),
    }

    /// The requests that have come.
    type Tries = watch::Sender<usize>;

    /// A collector on loopback, and how many requests have come to it.
    async fn collector(answer: Answer) -> (SocketAddr, Tries) {
        let take = async move |State(tries): State<Tries>| {
            tries.send_modify(|tries| *tries += 1);
            match answer {
                Answer::Never => std::future::pending().await,
                Answer::With(status) => status,
            }
        };
        let tries = Tries::default();
        let routes = Router::new()
            .route(PATH, post(take))
            .with_state(tries.clone());
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(socket, routes).await });
        (address, tries)
    }

    fn traces_to(address: SocketAddr) -> Traces {
        // Whether the process has a default is not for a test to decide.
        let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        let options = TraceOptions {
            endpoint: format!("http://{address}").parse().unwrap(),
            sampling: 1.0,
            namespace: "ssm-operator".to_owned(),
            instance: "pod".to_owned(),
            tls,
        };
        Traces::new(options, Handle::current()).unwrap()
    }

    /// Makes so many spans.
    fn trace(traces: &Traces, spans: usize) {
        let subscriber = Registry::default().with(traces.layer());
        tracing::subscriber::with_default(subscriber, || {
            for _ in 0..spans {
                drop(info_span!("reconcile"));
            }
        });
    }

    /// How the end went, on a thread that may block.
    async fn end(traces: Traces) -> OTelSdkResult {
        let ended = tokio::task::spawn_blocking(move || traces.send_the_last());
        ended.await.unwrap()
    }

    #[tokio::test]
    async fn the_process_ends_while_a_silent_collector_still_holds_the_first_batch() {
        let (address, tries) = collector(Answer::Never).await;
        let traces = traces_to(address);
        trace(&traces, 3 * QUEUE_SPANS_MAX);
        tries
            .subscribe()
            .wait_for(|tries| *tries > 0)
            .await
            .unwrap();
        end(traces).await.expect("nothing is waited for any more");
        assert_eq!(*tries.borrow(), 1, "and the others are not tried");
    }

    #[tokio::test]
    async fn a_batch_that_is_refused_is_not_sent_again() {
        let (address, tries) = collector(Answer::With(StatusCode::SERVICE_UNAVAILABLE)).await;
        let traces = traces_to(address);
        trace(&traces, 1);
        end(traces).await.unwrap();
        assert_eq!(*tries.borrow(), 1);
    }

    #[tokio::test]
    async fn a_collector_that_answers_gets_all_that_waits_at_the_end() {
        let (address, tries) = collector(Answer::With(StatusCode::OK)).await;
        let traces = traces_to(address);
        trace(&traces, BATCH_SPANS_MAX + 1);
        end(traces).await.unwrap();
        assert!(*tries.borrow() >= 2, "a batch, and the rest");
    }
}
