//! Logs: JSON for collectors or text for people, without secrets at any level. And traces, for whoever names a collector.

mod collector;
mod traces;

use tracing::{Level, Metadata};
use tracing_subscriber::filter::{EnvFilter, FilterExt, ParseError, filter_fn};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Layer, Registry};

use traces::is_traced;
pub use traces::{SPANS, TraceOptions, Traces};

/// How logs are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// One JSON object a line, for collectors.
    Json,
    /// For people.
    Text,
}

/// Crates that see requests, responses and websocket frames: at DEBUG and TRACE they write what they see, tokens and
/// signatures included. Whatever the filter says, they are never written below INFO.
const SEEING_SECRETS: &[&str] = &[
    "aws_",
    "hyper",
    "h2",
    "rustls",
    "tokio_rustls",
    "tungstenite",
    "tokio_tungstenite",
];

/// It writes whole answers of the API server at WARN and below, of any length and with whatever users wrote into them. What
/// it warns of comes back as an error, which whoever asked logs in few words.
const SHOWING_BODIES: &str = "kube_client::client";

/// Said before the user's filter, so that it counts unless the user names these crates. The client of the API server
/// logs each error that it returns, and so do we, with what happens next.
const QUIET: &str = "aws_=warn,hyper=warn,h2=warn,rustls=warn,kube_client=warn,kube_client::client::builder=off,tower=warn";

/// Whether `filter` can be read.
///
/// # Errors
/// What is wrong with it.
pub fn check_filter(filter: &str) -> Result<(), ParseError> {
    env_filter(filter).map(drop)
}

fn env_filter(filter: &str) -> Result<EnvFilter, ParseError> {
    EnvFilter::builder().parse(format!("{QUIET},{filter}"))
}

/// What writes logs to `writer`.
///
/// # Errors
/// When `filter` can't be read.
pub fn subscriber<W>(
    format: LogFormat,
    filter: &str,
    writer: W,
) -> Result<impl tracing::Subscriber + for<'a> LookupSpan<'a> + Send + Sync, ParseError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let layer = tracing_subscriber::fmt::layer().with_writer(writer);
    let layer: Box<dyn Layer<Registry> + Send + Sync> = match format {
        LogFormat::Json => Box::new(layer.json().flatten_event(true)),
        LogFormat::Text => Box::new(layer.with_ansi(false)),
    };
    let filter = env_filter(filter)?.and(filter_fn(may_be_written));
    // A line says itself what it is about.
    let filter = filter.and(filter_fn(|metadata| !is_traced(metadata)));
    Ok(tracing_subscriber::registry().with(layer.with_filter(filter)))
}

fn may_be_written(metadata: &Metadata<'_>) -> bool {
    let sees_secrets = SEEING_SECRETS
        .iter()
        .any(|prefix| metadata.target().starts_with(prefix));
    let shows_bodies = metadata.target() == SHOWING_BODIES;
    (!sees_secrets || *metadata.level() <= Level::INFO)
        && (!shows_bodies || *metadata.level() <= Level::ERROR)
}

/// Writes logs to standard error from now on, and sends spans to the collector, if there is one.
///
/// # Errors
/// When `filter` can't be read, or logs are written already.
pub fn init(format: LogFormat, filter: &str, traces: Option<&Traces>) -> anyhow::Result<()> {
    let subscriber = subscriber(format, filter, std::io::stderr)?;
    let spans = traces.map(Traces::layer);
    tracing::subscriber::set_global_default(subscriber.with(spans))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn written(filter: &str, log: impl FnOnce()) -> String {
        let out = Written::default();
        let sink = out.clone();
        let subscriber = subscriber(LogFormat::Json, filter, move || sink.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, log);
        String::from_utf8(out.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn answers_of_the_api_server_are_never_written() {
        for filter in ["info", "trace", "kube_client::client=trace"] {
            let text = written(filter, || {
                tracing::warn!(target: "kube_client::client", "{{\"items\":[");
                tracing::trace!(target: "kube_client::client", "Status from {{");
            });
            assert_eq!(text, "", "{filter}");
        }
        let text = written(
            "info",
            || tracing::warn!(target: "kube_client::client::tls", "stale"),
        );
        assert!(text.contains("stale"), "{text}");
    }

    #[test]
    fn crates_that_see_secrets_write_nothing_below_info_whatever_the_filter_says() {
        for filter in [
            "trace",
            "aws_smithy_runtime=trace,tungstenite=trace,hyper=debug",
        ] {
            let text = written(filter, || {
                tracing::trace!(target: "aws_smithy_runtime::client", "s3cret");
                tracing::debug!(target: "aws_sdk_ssm::operation", "s3cret");
                tracing::debug!(target: "hyper::proto", "s3cret");
                tracing::trace!(target: "hyper_util::client", "s3cret");
                tracing::trace!(target: "tungstenite::protocol", "s3cret");
                tracing::trace!(target: "tokio_tungstenite", "s3cret");
                tracing::debug!(target: "rustls::client", "s3cret");
            });
            assert_eq!(text, "", "{filter}");
        }
    }

    #[test]
    fn the_sdk_is_quiet_unless_it_is_asked_for() {
        let log = || tracing::info!(target: "aws_config::profile", "loaded");
        assert_eq!(written("info", log), "");
        assert!(written("info,aws_config=info", log).contains("loaded"));
    }

    #[test]
    fn a_line_is_one_json_object_with_its_fields() {
        let text = written("info", || tracing::info!(listener = "l-1", "serving"));
        let line: serde_json::Value = serde_json::from_str(text.trim()).unwrap();
        assert_eq!(line["message"], "serving");
        assert_eq!(line["listener"], "l-1");
        assert_eq!(line["level"], "INFO");
    }

    #[test]
    fn a_filter_that_makes_no_sense_is_refused() {
        assert!(check_filter("ssm_session_operator=loudly").is_err());
        assert!(check_filter("debug,ssm_session_operator::relay=trace").is_ok());
    }
}
