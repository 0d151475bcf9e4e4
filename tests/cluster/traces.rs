//! Traces: what a collector is told, that it is told no secret, and that nobody waits for one that does not answer.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use ssm_session_operator::simulator::{Fault, Operation, SimulatorOptions};
use ssm_session_operator::telemetry::SPANS;
use tokio::net::TcpListener;

use crate::collector::{Collector, Span};
use crate::listeners::live_session;
use crate::wait::ask_until;
use crate::world::{SECRET_KEY, TARGET, WAIT_MAX, World};

/// All that spans tell: whoever adds something here has looked whether it may be told.
const TOLD: [&str; 15] = [
    "aws.request_id",
    "cloud.region",
    "document",
    "error.type",
    "k8s.namespace.name",
    "kind",
    "listener",
    "name",
    "outcome",
    "rpc.method",
    "rpc.system",
    "service.instance.id",
    "service.name",
    "session",
    "target",
];

/// The spans that are parts of another.
fn parts<'a>(spans: &'a [Span], whole: &Span) -> Vec<&'a Span> {
    let parts = spans.iter().filter(|span| span.parent == whole.id);
    parts.filter(|span| span.trace == whole.trace).collect()
}

fn started(spans: &[Span]) -> Option<&Span> {
    let mut starts = spans.iter().filter(|span| span.name == "start session");
    starts.find(|span| {
        span.attributes
            .get("outcome")
            .is_some_and(|outcome| outcome == "Served")
    })
}

#[tokio::test]
async fn a_collector_is_told_of_starts_calls_and_reconciles_and_of_no_secret() {
    let world = World::new("traces").await;
    let collector = Collector::start().await.expect("loopback takes one");
    let endpoint = format!("--otlp-endpoint={}", collector.endpoint());
    let operator = world.all_in_one(&[&endpoint]).await;
    world.create(&world.session("orders")).await;
    world.wait_available("orders").await;
    let session = live_session(&world.wait_serving("orders").await);
    let told = ask_until(WAIT_MAX, async || started(&collector.spans()).map(drop));
    assert!(told.await.is_some(), "{:#?}", collector.spans());
    world.remove("orders").await;
    operator.stop().await.expect("it ends well");

    let spans = collector.spans();
    let start = started(&spans).expect("it was there");
    assert_eq!(start.attributes["session"], session);
    assert_eq!(start.attributes["target"], TARGET);
    let mut of_start: Vec<_> = parts(&spans, start)
        .iter()
        .map(|part| &*part.name)
        .collect();
    of_start.sort_unstable();
    assert_eq!(of_start, ["StartSession", "handshake", "open websocket"]);
    let call = parts(&spans, start)
        .into_iter()
        .find(|part| part.name == "StartSession");
    let call = call.expect("it is one of them");
    assert_eq!(call.attributes["rpc.method"], "StartSession");
    assert_eq!(call.attributes["aws.request_id"].len(), 36);
    let of_sessions = |span: &&Span| {
        let about = &span.attributes;
        span.name == "reconcile" && about["kind"] == "SsmSession" && about["name"] == "orders"
    };
    let reconcile = spans.iter().find(of_sessions).expect("it was reconciled");
    assert_eq!(reconcile.attributes["k8s.namespace.name"], world.namespace);
    assert_eq!(
        reconcile.resource["k8s.namespace.name"],
        world.operator_namespace
    );
    // At the end, and no later: what the process did last was sent before it ended.
    assert!(spans.iter().any(|span| span.name == "TerminateSession"));

    let calls = ["StartSession", "DescribeSessions", "TerminateSession"];
    let names: BTreeSet<_> = spans.iter().map(|span| span.name.as_str()).collect();
    let known: BTreeSet<_> = SPANS.iter().chain(&calls).copied().collect();
    assert!(names.is_subset(&known), "{names:?}");
    let tokens = world.simulator.issued_tokens();
    assert!(!tokens.is_empty(), "there is something to look for");
    for span in &spans {
        let of_starts = span.name != "reconcile";
        assert!(
            span.error.is_none() || !of_starts,
            "nothing has failed: {span:?}"
        );
        for (key, value) in span.attributes.iter().chain(&span.resource) {
            let of_sdk = key.starts_with("telemetry.sdk.") || key == "service.version";
            assert!(of_sdk || TOLD.contains(&key.as_str()), "{key}: {value}");
            let secret = tokens.iter().any(|token| value.contains(token.as_str()));
            assert!(!secret && !value.contains(SECRET_KEY), "{key} has a secret");
        }
    }
}

/// Waits for a span that failed, and gives what it says of that; no secret is among it.
async fn failed(world: &World, collector: &Collector, name: &str) -> String {
    let told = ask_until(WAIT_MAX, async || {
        let mut spans = collector.spans().into_iter();
        spans.find_map(|span| span.error.filter(|_| span.name == name))
    });
    let told = told
        .await
        .unwrap_or_else(|| panic!("no {name} has failed: {:#?}", collector.spans()));
    let tokens = world.simulator.issued_tokens();
    let secret = tokens.iter().any(|token| told.contains(token.as_str()));
    assert!(
        !secret && !told.contains("://") && !told.contains(SECRET_KEY),
        "{name} has a secret"
    );
    told
}

#[tokio::test]
async fn a_collector_is_told_which_steps_of_a_start_failed_and_why() {
    // Stream URLs lead to a port of loopback that is nobody's.
    let options = SimulatorOptions {
        stream_base: Some("ws://127.0.0.1:1".to_owned()),
        ..SimulatorOptions::default()
    };
    let world = World::with("failed-starts", options).await;
    let denied = Fault::Fail {
        operation: Operation::StartSession,
        calls: 1,
        code: "AccessDeniedException".to_owned(),
    };
    world.simulator.inject(denied).expect("a fault");
    let collector = Collector::start().await.expect("loopback takes one");
    let endpoint = format!("--otlp-endpoint={}", collector.endpoint());
    let relay = ["--handshake-timeout=1s", &endpoint];
    let relay = world.relay("relay-a", &relay).await;
    let controller = world.controller(&[]).await;
    world.create(&world.session("orders")).await;

    let told = failed(&world, &collector, "StartSession").await;
    assert_eq!(told, "StartSession: AccessDenied");
    let told = failed(&world, &collector, "start session").await;
    assert_eq!(told, "StartSession: AccessDenied");
    let told = failed(&world, &collector, "open websocket").await;
    assert_eq!(told, "the gateway can't be connected to");
    let gave_up = ask_until(WAIT_MAX, async || {
        let told = |span: &Span| span.error.as_deref() == Some("no data channel");
        collector.spans().iter().any(told).then_some(())
    });
    assert!(gave_up.await.is_some(), "{:#?}", collector.spans());
    relay.stop().await.expect("it ends well");
    controller.stop().await.expect("it ends well");
}

#[tokio::test]
async fn a_collector_is_told_of_a_handshake_that_was_given_up_and_of_no_failure_where_all_is_well()
{
    let world = World::new("silent-start").await;
    let silence = Fault::SilentStarts { calls: 1 };
    world.simulator.inject(silence).expect("a fault");
    let collector = Collector::start().await.expect("loopback takes one");
    let endpoint = format!("--otlp-endpoint={}", collector.endpoint());
    let operator = ["--handshake-timeout=1s", &endpoint];
    let operator = world.all_in_one(&operator).await;
    world.create(&world.session("orders")).await;
    let told = failed(&world, &collector, "handshake").await;
    assert_eq!(told, "given up: too late, or no longer wanted");
    // The next start goes well, and so do all its parts.
    let served = ask_until(WAIT_MAX, async || {
        let spans = collector.spans();
        let start = started(&spans)?;
        let whole = parts(&spans, start).len() == 3;
        whole.then(|| {
            parts(&spans, start)
                .iter()
                .chain([&start])
                .find_map(|span| span.error.clone())
        })
    });
    assert_eq!(served.await, Some(None), "{:#?}", collector.spans());
    operator.stop().await.expect("it ends well");
}

#[tokio::test]
async fn a_collector_that_is_not_there_or_does_not_answer_keeps_nobody_and_is_logged_once() {
    let world = World::new("no-collector").await;
    // It takes connections, and nobody reads them.
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
    let silent = silent.expect("loopback takes a server");
    let endpoint = format!("http://{}", silent.local_addr().expect("it has one"));
    let relay = world
        .relay("relay-a", &[&format!("--otlp-endpoint={endpoint}")])
        .await;
    // Port 1 of loopback is nobody's.
    let mut controller = world
        .controller(&["--otlp-endpoint=http://127.0.0.1:1"])
        .await;
    world.create(&world.session("orders")).await;
    world.wait_available("orders").await;
    let said = "the collector takes no spans";
    let line = controller.wait_for_log(said, WAIT_MAX).await;
    assert!(line.expect("it says so").contains("refused"));
    world.remove("orders").await;
    let logged = |logs: &str| logs.matches(said).count();
    relay.stop().await.expect("it ends well, and in time");
    let controller_log = controller.logged();
    controller.stop().await.expect("it ends well, and in time");
    assert_eq!(logged(&controller_log), 1);
}
