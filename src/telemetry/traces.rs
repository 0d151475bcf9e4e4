//! Traces: the few spans that are worth a look, by OTLP over HTTP to a collector.
//!
//! Only what [`SPANS`] names leaves the process: a span of a library, which may show what it sees, does not. Nobody waits
//! for the collector: spans wait in a queue that has an end, and beyond it they are dropped.

use std::time::Duration;

use anyhow::Context as _;
use http::Uri;
use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracerProvider,
};
use tokio::runtime::Handle;
use tokio_rustls::rustls::ClientConfig;
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

/// How long the last spans have at the end of the process: a pod has 15 s more than the program's own deadline.
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
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(Collector::new(tls, runtime))
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
        Ok(Self { provider })
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

    /// Sends what waits, for some seconds at most. For a thread that may block, while the runtime still runs.
    pub fn finish(&self) {
        if let Err(error) = self.provider.shutdown_with_timeout(FLUSH_TIMEOUT) {
            warn!(%error, "the last spans were not sent");
        }
    }
}

/// Whether this is a span that leaves the process.
pub(super) fn is_traced(metadata: &Metadata<'_>) -> bool {
    metadata.is_span() && metadata.target().starts_with(TARGET) && SPANS.contains(&metadata.name())
}
