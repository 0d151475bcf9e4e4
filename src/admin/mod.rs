//! Probes and metrics over HTTP: `/livez`, `/readyz` and `/metrics`.
//!
//! Alive is a process whose runtime answers, and nothing else is asked: a part that has ended takes its process down by
//! itself, and what is amiss outside of it, in the API server or in AWS, no restart mends. Ready is a process whose named
//! checks all hold; each is printed with why it does not, and what is amiss though they hold, for whoever asks.

mod connections;

use std::fmt::Write;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Media type of the metrics.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The named checks of a process.
#[derive(Clone, Debug, Default)]
pub struct Checks {
    all: Vec<Check>,
    remarks: Vec<(&'static str, watch::Receiver<String>)>,
}

#[derive(Clone, Debug)]
struct Check {
    name: &'static str,
    unless: &'static str,
    holds: watch::Receiver<bool>,
}

impl Checks {
    /// Adds a check that does not hold yet; whoever gets the sender says when it does. `unless` says what is so while it
    /// does not.
    pub fn add(&mut self, name: &'static str, unless: &'static str) -> watch::Sender<bool> {
        let (sender, holds) = watch::channel(false);
        self.all.push(Check {
            name,
            unless,
            holds,
        });
        sender
    }

    /// Adds what may be amiss with a process that is ready all the same; whoever gets the sender says what, and says
    /// nothing while all is well.
    pub fn remark(&mut self, name: &'static str) -> watch::Sender<String> {
        let (sender, receiver) = watch::channel(String::new());
        self.remarks.push((name, receiver));
        sender
    }

    /// Whether all hold, and a line for each, and for what is amiss.
    fn evaluate(&self) -> (bool, String) {
        let mut all = true;
        let mut lines = String::new();
        for Check {
            name,
            unless,
            holds,
        } in &self.all
        {
            let holds = *holds.borrow();
            all &= holds;
            let (sign, words) = if holds { ('+', "ok") } else { ('-', *unless) };
            // Writing to a String can't fail.
            let _ = writeln!(lines, "[{sign}] {name}: {words}");
        }
        for (name, receiver) in &self.remarks {
            let remark = receiver.borrow().clone();
            if !remark.is_empty() {
                let _ = writeln!(lines, "[!] {name}: {remark}");
            }
        }
        (all, lines)
    }
}

#[derive(Clone)]
struct Shown {
    checks: Checks,
    registry: Arc<Mutex<Registry>>,
}

/// Serves probes and metrics on `listener` until `shutdown` is cancelled.
pub async fn run(
    listener: TcpListener,
    checks: Checks,
    registry: Arc<Mutex<Registry>>,
    shutdown: CancellationToken,
) {
    let routes = Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(Shown { checks, registry });
    // Not a graceful end: whoever is slow must not keep the process.
    tokio::select! {
        () = connections::serve(listener, routes) => {}
        () = shutdown.cancelled() => {}
    }
}

async fn readyz(State(shown): State<Shown>) -> (StatusCode, String) {
    let (ready, lines) = shown.checks.evaluate();
    (
        if ready {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        },
        lines,
    )
}

async fn metrics(State(shown): State<Shown>) -> Response {
    let mut text = String::new();
    let registry = shown
        .registry
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    match encode(&mut text, &registry) {
        Ok(()) => ([(header::CONTENT_TYPE, OPENMETRICS)], text).into_response(),
        Err(error) => {
            let words = format!("metrics can't be written: {error}\n");
            (StatusCode::INTERNAL_SERVER_ERROR, words).into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use prometheus_client::metrics::counter::Counter;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    async fn served(checks: Checks, registry: Registry) -> (SocketAddr, CancellationToken) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let registry = Arc::new(Mutex::new(registry));
        tokio::spawn(run(listener, checks, registry, shutdown.clone()));
        (address, shutdown)
    }

    async fn got(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn a_process_is_ready_once_every_check_holds_and_each_is_printed() {
        let mut checks = Checks::default();
        let lease = checks.add("relay lease", "it is not held");
        let caches = checks.add("controller caches", "they are not filled");
        let (address, _shutdown) = served(checks, Registry::default()).await;

        assert!(got(address, "/livez").await.starts_with("HTTP/1.1 200"));
        lease.send_replace(true);
        let answer = got(address, "/readyz").await;
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        assert!(
            answer.contains("[+] relay lease: ok\n[-] controller caches: they are not filled\n")
        );

        caches.send_replace(true);
        assert!(got(address, "/readyz").await.starts_with("HTTP/1.1 200"));
    }

    #[tokio::test]
    async fn what_is_amiss_is_printed_and_makes_no_process_unready() {
        let mut checks = Checks::default();
        checks
            .add("controller caches", "they are not filled")
            .send_replace(true);
        let remark = checks.remark("watched namespaces");
        let (address, _shutdown) = served(checks, Registry::default()).await;
        let answer = got(address, "/readyz").await;
        assert!(answer.ends_with("[+] controller caches: ok\n"), "{answer}");
        remark.send_replace("shop can't be read".to_owned());
        let answer = got(address, "/readyz").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(
            answer.ends_with("[!] watched namespaces: shop can't be read\n"),
            "{answer}"
        );
    }

    #[tokio::test]
    async fn metrics_are_openmetrics() {
        let mut registry = Registry::default();
        let counter = Counter::<u64>::default();
        registry.register("polls", "Polls of AWS", counter.clone());
        counter.inc();
        let (address, _shutdown) = served(Checks::default(), registry).await;

        let answer = got(address, "/metrics").await;
        assert!(
            answer
                .to_lowercase()
                .contains(&format!("content-type: {OPENMETRICS}")),
            "{answer}"
        );
        assert!(answer.contains("polls_total 1\n"), "{answer}");
        assert!(answer.ends_with("# EOF\n"), "{answer}");
    }

    #[tokio::test]
    async fn who_holds_connections_keeps_no_probe_out_and_the_oldest_is_closed() {
        let (address, _shutdown) = served(Checks::default(), Registry::default()).await;
        let mut held = Vec::new();
        for _ in 0..connections::CONNECTIONS_MAX {
            held.push(TcpStream::connect(address).await.unwrap());
        }
        let probe = got(address, "/livez").await;
        assert!(probe.starts_with("HTTP/1.1 200"), "{probe}");
        // A byte would wait for the next; the end of the connection does not.
        let oldest = held.first_mut().unwrap();
        assert!(matches!(oldest.read(&mut [0; 1]).await, Ok(0) | Err(_)));
        let youngest = held.last_mut().unwrap();
        let request = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n";
        youngest.write_all(request).await.unwrap();
        let mut answer = String::new();
        youngest.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }

    #[tokio::test]
    async fn it_ends_when_the_process_does() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let shutdown = CancellationToken::new();
        let registry = Arc::new(Mutex::new(Registry::default()));
        let serving = tokio::spawn(run(listener, Checks::default(), registry, shutdown.clone()));
        shutdown.cancel();
        serving.await.unwrap();
    }
}
