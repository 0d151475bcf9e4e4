//! Elections as claims, on virtual time and against an API server in memory that can be cut off from one candidate.

use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use futures::FutureExt;
use http::{Method, Request, Response, StatusCode};
use kube::Client;
use kube::client::Body;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::*;
use crate::lease;

const NAME: &str = "controller";
const TIMING: Timing = Timing {
    duration: Duration::from_secs(15),
    renew_deadline: Duration::from_secs(10),
    retry: Duration::from_secs(2),
};

/// The one Lease of an API server.
#[derive(Clone, Default)]
struct Server(Arc<Mutex<Stored>>);

#[derive(Default)]
struct Stored {
    lease: Option<Lease>,
    version: u64,
}

/// How requests of one candidate fare.
#[derive(Clone, Default)]
struct Line {
    /// They are answered with an error.
    refused: Arc<AtomicBool>,
    /// They are not answered.
    silent: Arc<AtomicBool>,
}

impl Server {
    fn api(&self, line: &Line) -> Api<Lease> {
        let (server, line) = (self.clone(), line.clone());
        let service = tower::service_fn(move |request: Request<Body>| {
            let (server, line) = (server.clone(), line.clone());
            async move {
                if line.silent.load(Ordering::SeqCst) {
                    std::future::pending::<()>().await;
                }
                let (head, body) = request.into_parts();
                let body = body.collect_bytes().await.expect("a body");
                if line.refused.load(Ordering::SeqCst) {
                    return Ok(status(StatusCode::INTERNAL_SERVER_ERROR));
                }
                Ok::<_, Infallible>(server.answer(&head.method, &body))
            }
            .boxed()
        });
        Api::namespaced(Client::new(service, "default"), "operator")
    }

    fn answer(&self, method: &Method, body: &[u8]) -> Response<Body> {
        let mut stored = self.0.lock().expect("a lock");
        let lease = if method == Method::GET {
            stored.lease.clone()
        } else {
            let mut new: Lease = serde_json::from_slice(body).expect("a Lease");
            let version = |lease: &Lease| lease.metadata.resource_version.clone();
            match (method == Method::POST, &stored.lease) {
                (true, Some(_)) => return status(StatusCode::CONFLICT),
                (false, None) => return status(StatusCode::NOT_FOUND),
                (false, Some(old)) if version(old) != version(&new) => {
                    return status(StatusCode::CONFLICT);
                }
                (true, None) | (false, Some(_)) => {}
            }
            stored.version += 1;
            new.metadata.resource_version = Some(stored.version.to_string());
            stored.lease = Some(new);
            stored.lease.clone()
        };
        match lease {
            Some(lease) => answer(StatusCode::OK, &serde_json::to_vec(&lease).expect("JSON")),
            None => status(StatusCode::NOT_FOUND),
        }
    }

    fn holder(&self) -> Option<String> {
        let stored = self.0.lock().expect("a lock");
        stored.lease.as_ref().and_then(holder).map(str::to_owned)
    }

    /// Somebody writes the Lease by hand.
    fn edit(&self, edit: impl FnOnce(&mut Option<Lease>)) {
        let mut stored = self.0.lock().expect("a lock");
        stored.version += 1;
        let version = stored.version.to_string();
        edit(&mut stored.lease);
        if let Some(lease) = &mut stored.lease {
            lease.metadata.resource_version = Some(version);
        }
    }
}

fn answer(code: StatusCode, body: &[u8]) -> Response<Body> {
    let mut answer = Response::new(Body::from(body.to_vec()));
    *answer.status_mut() = code;
    answer
}

fn status(code: StatusCode) -> Response<Body> {
    let reason = match code {
        StatusCode::CONFLICT => "Conflict",
        StatusCode::NOT_FOUND => "NotFound",
        _ => "InternalError",
    };
    let body = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure",
        "reason": reason, "message": "no", "code": code.as_u16(),
    });
    answer(code, body.to_string().as_bytes())
}

/// What a candidate says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    Leads(&'static str),
    Stopped(&'static str),
}

/// Says that its candidate stopped, however its run is ended.
struct Term(&'static str, mpsc::UnboundedSender<(Said, Instant)>);

impl Drop for Term {
    fn drop(&mut self) {
        let _ = self.1.send((Said::Stopped(self.0), Instant::now()));
    }
}

/// Candidates for one Lease, and what they say.
struct World {
    server: Server,
    said: mpsc::UnboundedReceiver<(Said, Instant)>,
    sender: mpsc::UnboundedSender<(Said, Instant)>,
}

struct Running {
    line: Line,
    shutdown: CancellationToken,
    ended: JoinHandle<Result<(), &'static str>>,
    /// What its run fails with, once this is cancelled.
    fail: CancellationToken,
}

impl World {
    fn new() -> Self {
        let (sender, said) = mpsc::unbounded_channel();
        Self {
            server: Server::default(),
            said,
            sender,
        }
    }

    fn start(&self, name: &'static str) -> Running {
        let (line, shutdown, fail) = (
            Line::default(),
            CancellationToken::new(),
            CancellationToken::new(),
        );
        let api = self.server.api(&line);
        let candidate = Candidate::new(api, NAME.to_owned(), name.to_owned(), TIMING);
        let (sender, failing) = (self.sender.clone(), fail.clone());
        let stopping = shutdown.clone();
        let ended = tokio::spawn(async move {
            let run = |_: lease::Term, stop: CancellationToken| {
                let (sender, failing) = (sender.clone(), failing.clone());
                async move {
                    let _ = sender.send((Said::Leads(name), Instant::now()));
                    let _term = Term(name, sender.clone());
                    tokio::select! {
                        () = stop.cancelled() => Ok(()),
                        () = failing.cancelled() => Err("failed"),
                    }
                }
            };
            candidate.lead(stopping, |_| {}, run).await
        });
        Running {
            line,
            shutdown,
            ended,
            fail,
        }
    }

    /// What is said next, and when.
    async fn next(&mut self) -> (Said, Instant) {
        let limit = TIMING.duration * 10;
        let said = timeout(limit, self.said.recv()).await;
        said.expect("something is said").expect("a sender")
    }

    async fn expect(&mut self, expected: Said) -> Instant {
        let (said, at) = self.next().await;
        assert_eq!(said, expected);
        at
    }

    /// Nothing changes for so long.
    async fn quiet(&mut self, limit: Duration) {
        let said = timeout(limit, self.said.recv()).await;
        assert!(said.is_err(), "{said:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_leads_for_as_long_as_it_renews_and_hands_over_at_once() {
    let mut world = World::new();
    let first = world.start("a");
    world.expect(Said::Leads("a")).await;
    let second = world.start("b");
    world.quiet(TIMING.duration * 100).await;

    first.shutdown.cancel();
    let stopped = world.expect(Said::Stopped("a")).await;
    let begun = world.expect(Said::Leads("b")).await;
    assert!(begun - stopped <= TIMING.retry, "it was given back");
    assert_eq!(first.ended.await.expect("no panic"), Ok(()));
    second.shutdown.cancel();
    world.expect(Said::Stopped("b")).await;
    assert_eq!(second.ended.await.expect("no panic"), Ok(()));
    assert_eq!(world.server.holder(), None);
}

#[tokio::test(start_paused = true)]
async fn that_another_leads_is_heard_at_each_look() {
    let mut world = World::new();
    let _first = world.start("a");
    world.expect(Said::Leads("a")).await;
    let api = world.server.api(&Line::default());
    let candidate = Candidate::new(api, NAME.to_owned(), "b".to_owned(), TIMING);
    let heard = Mutex::new(Vec::new());
    let hear = |standing_by| heard.lock().expect("a lock").push(standing_by);
    let never = |_, _| std::future::pending::<Result<(), Infallible>>();
    let stands = candidate.lead(CancellationToken::new(), hear, never);
    assert!(timeout(10 * TIMING.retry, stands).await.is_err());
    let heard = heard.into_inner().expect("a lock");
    assert!(heard.len() >= 10 && heard.iter().all(|standing_by| *standing_by));
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_is_cut_off_has_stopped_before_another_starts() {
    for silent in [false, true] {
        let mut world = World::new();
        let first = world.start("a");
        world.expect(Said::Leads("a")).await;
        let _second = world.start("b");
        world.quiet(TIMING.duration).await;
        let cut = if silent {
            &first.line.silent
        } else {
            &first.line.refused
        };
        cut.store(true, Ordering::SeqCst);
        let stopped = world.expect(Said::Stopped("a")).await;
        let begun = world.expect(Said::Leads("b")).await;
        let deadlines_apart = stopped + TIMING.duration;
        let between = begun + TIMING.renew_deadline;
        assert!(between >= deadlines_apart, "{:?}", begun - stopped);

        cut.store(false, Ordering::SeqCst);
        world.quiet(TIMING.duration * 3).await;
        assert_eq!(world.server.holder().as_deref(), Some("b"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_short_outage_of_the_api_server_changes_nothing() {
    let mut world = World::new();
    let first = world.start("a");
    world.expect(Said::Leads("a")).await;
    let _second = world.start("b");
    for _ in 0..10 {
        world.quiet(TIMING.renew_deadline).await;
        first.line.refused.store(true, Ordering::SeqCst);
        world.quiet(TIMING.renew_deadline / 2).await;
        first.line.refused.store(false, Ordering::SeqCst);
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_whose_lease_was_taken_stops_and_leads_again_later() {
    let mut world = World::new();
    let _first = world.start("a");
    world.expect(Said::Leads("a")).await;
    world.server.edit(|lease| {
        let spec = lease.as_mut().and_then(|lease| lease.spec.as_mut());
        spec.expect("a spec").holder_identity = Some("c".to_owned());
    });
    let stopped = world.expect(Said::Stopped("a")).await;
    let again = world.expect(Said::Leads("a")).await;
    assert!(again >= stopped + TIMING.duration, "c never gave it back");
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_annotated_or_deleted_by_hand_is_kept() {
    let mut world = World::new();
    let _first = world.start("a");
    world.expect(Said::Leads("a")).await;
    world.server.edit(|lease| {
        let annotations = &mut lease.as_mut().expect("a Lease").metadata.annotations;
        let annotations = annotations.get_or_insert_default();
        annotations.insert("seen-by".to_owned(), "somebody".to_owned());
    });
    world.quiet(TIMING.duration * 2).await;
    world.server.edit(|lease| *lease = None);
    world.quiet(TIMING.duration * 2).await;
    assert_eq!(world.server.holder().as_deref(), Some("a"));
}

#[tokio::test(start_paused = true)]
async fn a_longer_lease_than_ones_own_is_respected() {
    let mut world = World::new();
    let promised = TIMING.duration * 4;
    world.server.edit(|lease| {
        let mut held = Lease::default();
        held.metadata.name = Some(NAME.to_owned());
        let spec = held.spec.get_or_insert_default();
        spec.holder_identity = Some("older".to_owned());
        spec.lease_duration_seconds = i32::try_from(promised.as_secs()).ok();
        *lease = Some(held);
    });
    let begun = Instant::now();
    let _first = world.start("a");
    let leads = world.expect(Said::Leads("a")).await;
    assert!(leads >= begun + promised);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_fails_gives_the_lease_back_and_says_why() {
    let mut world = World::new();
    let first = world.start("a");
    world.expect(Said::Leads("a")).await;
    first.fail.cancel();
    world.expect(Said::Stopped("a")).await;
    assert_eq!(first.ended.await.expect("no panic"), Err("failed"));
    assert_eq!(world.server.holder(), None);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_while_another_leads_ends_at_once_and_takes_nothing() {
    let mut world = World::new();
    let _first = world.start("a");
    world.expect(Said::Leads("a")).await;
    let second = world.start("b");
    world.quiet(TIMING.duration).await;
    second.shutdown.cancel();
    assert_eq!(second.ended.await.expect("no panic"), Ok(()));
    assert_eq!(world.server.holder().as_deref(), Some("a"));
}
