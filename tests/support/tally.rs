//! A reverse proxy before the API server that counts requests: what a process asks for is there to be looked at, and
//! not only what came of it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result};
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{self, State};
use axum::http::{Request, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use kube::Client;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// What the API server takes as one object, and more than that.
const BODY_BYTES_MAX: usize = 4 << 20;

/// How often each was asked for: method and resource, such as `PUT leases` or `PUT ssmsessions/status`.
pub type Counts = BTreeMap<String, u64>;

/// A proxy on loopback, over plain HTTP; dropping it ends it.
pub struct Tally {
    address: SocketAddr,
    counts: Arc<Mutex<Counts>>,
    task: JoinHandle<()>,
}

#[derive(Clone)]
struct Served {
    client: Client,
    counts: Arc<Mutex<Counts>>,
}

impl Tally {
    /// Listens on a free port, and forwards every request with the rights of `client`.
    pub async fn start(client: Client) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("loopback")?;
        let address = listener.local_addr()?;
        let counts: Arc<Mutex<Counts>> = Arc::default();
        let served = Served {
            client,
            counts: Arc::clone(&counts),
        };
        let router = Router::new().fallback(forward).with_state(served);
        let task = tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self {
            address,
            counts,
            task,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What was asked for so far.
    pub fn counts(&self) -> Counts {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.clone()
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn forward(State(served): State<Served>, mut request: extract::Request) -> Response {
    let what = format!("{} {}", request.method(), resource(request.uri().path()));
    let count = || {
        let mut counts = served.counts.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(what).or_default() += 1;
    };
    count();
    // Both are the connection's, and the client sets its own.
    request.headers_mut().remove(header::HOST);
    request.headers_mut().remove(header::CONNECTION);
    let (head, body) = request.into_parts();
    let body = match to_bytes(body, BODY_BYTES_MAX).await {
        Ok(body) => body.to_vec(),
        Err(error) => return (StatusCode::BAD_REQUEST, error.to_string()).into_response(),
    };
    match served
        .client
        .send(Request::from_parts(head, body.into()))
        .await
    {
        Ok(response) => response.map(Body::new),
        Err(error) => (StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
    }
}

/// The resource of a path, with its subresource: `/api/v1/namespaces/a/services/b/status` is of `services/status`.
fn resource(path: &str) -> String {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let (["api", _, parts @ ..] | ["apis", _, _, parts @ ..]) = parts.as_slice() else {
        return path.to_owned();
    };
    match parts {
        ["namespaces", _, resource, _, subresource] | [resource, _, subresource]
            if *resource != "namespaces" =>
        {
            format!("{resource}/{subresource}")
        }
        ["namespaces", _, resource, ..] | [resource, ..] => (*resource).to_owned(),
        [] => path.to_owned(),
    }
}
