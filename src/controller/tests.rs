//! What is promised of the controller as a whole.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use kube::Config;
use serde_json::json;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::*;
use crate::broker::{ErrorKind, SessionId};
use crate::controller::fake_aws::FakeAws;
use crate::controller::fixtures::{aws as aws_of_classes, context, session, term};
use crate::identity::identity_of;

#[derive(Default)]
struct Served {
    /// The sessions were listed, so one is given to its reconciler.
    listed: AtomicBool,
    watched: Notify,
}

/// An API server with one `SsmSession`, and without the kind of the classes.
async fn answer(State(served): State<Arc<Served>>, uri: Uri) -> Response {
    let meta = json!({ "resourceVersion": "1" });
    let path = uri.path();
    if path.ends_with("/ssmsessions") {
        if uri
            .query()
            .is_some_and(|query| query.contains("watch=true"))
        {
            if served.listed.load(Ordering::Acquire) {
                served.watched.notify_one();
            }
            std::future::pending::<()>().await;
        }
        served.listed.store(true, Ordering::Release);
        let list = json!({ "kind": "SsmSessionList", "apiVersion": "ssm-operator.dev/v1alpha1",
            "metadata": meta, "items": [session(&["sql"])] });
        return axum::Json(list).into_response();
    }
    let status =
        json!({ "kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404 });
    (StatusCode::NOT_FOUND, axum::Json(status)).into_response()
}

#[tokio::test]
async fn when_the_term_is_over_no_session_is_terminated() {
    let aws = Arc::new(FakeAws::default());
    let context = context(aws.clone(), RelaysView::default());
    let identity = identity_of(&aws_of_classes());
    let live = SessionId::parse("ssm-operator-0123456789abcdef0").unwrap();
    context.term.end();
    let error = context.terminate(&identity, &live).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable);
    assert!(aws.terminated.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_shutdown_before_the_caches_are_filled_ends_it() {
    let socket = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .unwrap();
    let url: Uri = format!("http://{}", socket.local_addr().unwrap())
        .parse()
        .unwrap();
    let served = Arc::new(Served::default());
    let routes = Router::new().fallback(answer).with_state(served.clone());
    tokio::spawn(async move { axum::serve(socket, routes).await });
    let client = Client::try_from(Config::new(url)).unwrap();
    let shutdown = CancellationToken::new();
    let (synced, is_synced) = watch::channel(false);
    let running = tokio::spawn(run(
        client,
        Arc::new(FakeAws::default()),
        ControllerOptions::new("operator", "namespace-uid"),
        Metrics::default(),
        Readiness {
            synced,
            unreadable: watch::Sender::default(),
        },
        term(),
        shutdown.clone(),
    ));

    served.watched.notified().await;
    shutdown.cancel();
    let ended = timeout(Duration::from_mins(1), running).await;
    assert!(ended.expect("it ends").unwrap().is_ok());
    assert!(!*is_synced.borrow());
}
