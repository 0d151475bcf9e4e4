//! A collector of traces on loopback: takes OTLP over HTTP, and keeps the spans.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http;
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use prost::Message as _;
use tokio::net::TcpListener;

/// A span as it came, with the attributes of what it came from.
#[derive(Clone, Debug)]
pub struct Span {
    /// Its name.
    pub name: String,
    /// The trace that it belongs to.
    pub trace: Vec<u8>,
    /// Its id within.
    pub id: Vec<u8>,
    /// The span that it is a part of; empty for none.
    pub parent: Vec<u8>,
    /// What it tells.
    pub attributes: BTreeMap<String, String>,
    /// Of the process.
    pub resource: BTreeMap<String, String>,
    /// Why it failed, if its status is that of an error.
    pub error: Option<String>,
}

type Spans = Arc<Mutex<Vec<Span>>>;

/// A collector, until the test's runtime ends.
pub struct Collector {
    address: SocketAddr,
    spans: Spans,
}

impl Collector {
    /// Starts one.
    pub async fn start() -> Result<Self> {
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = socket.local_addr()?;
        let spans = Spans::default();
        let routes = Router::new()
            .route("/v1/traces", post(take))
            .with_state(Arc::clone(&spans));
        tokio::spawn(async move { axum::serve(socket, routes).await });
        Ok(Self { address, spans })
    }

    /// Where it is.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// All spans that have come so far.
    pub fn spans(&self) -> Vec<Span> {
        let spans = self.spans.lock().unwrap_or_else(PoisonError::into_inner);
        spans.clone()
    }
}

async fn take(State(spans): State<Spans>, body: Bytes) -> http::StatusCode {
    let Ok(request) = ExportTraceServiceRequest::decode(body) else {
        return http::StatusCode::BAD_REQUEST;
    };
    let mut taken = spans.lock().unwrap_or_else(PoisonError::into_inner);
    for of_process in request.resource_spans {
        let resource = of_process.resource.unwrap_or_default();
        let resource = words(resource.attributes);
        let spans = of_process.scope_spans.into_iter().flat_map(|of| of.spans);
        taken.extend(spans.map(|span| Span {
            name: span.name,
            trace: span.trace_id,
            id: span.span_id,
            parent: span.parent_span_id,
            attributes: words(span.attributes),
            resource: resource.clone(),
            error: span.status.and_then(|status| {
                (status.code == StatusCode::Error as i32).then_some(status.message)
            }),
        }));
    }
    http::StatusCode::OK
}

fn words(attributes: Vec<KeyValue>) -> BTreeMap<String, String> {
    let word = |value: Option<AnyValue>| match value.and_then(|value| value.value) {
        Some(any_value::Value::StringValue(word)) => word,
        other => format!("{other:?}"),
    };
    let words = attributes.into_iter();
    words.map(|of| (of.key, word(of.value))).collect()
}
