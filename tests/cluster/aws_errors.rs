//! What stands in the way of a session and of its clients: it is said, and heals when the cause goes.

use serde_json::json;
use ssm_session_operator::crd::SsmSession;
use ssm_session_operator::crd::listener::EndReason;
use ssm_session_operator::simulator::{Operation, Status};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpSocket;

use crate::looks::{is_ready, is_stalled, live, message, port, status};
use crate::world::{World, condition, reason};

/// Whether a condition is `False` for this reason.
fn is_false(session: &SsmSession, kind: &str, why: &str) -> bool {
    condition(session, kind) == "False" && reason(session, kind) == why
}

#[tokio::test]
async fn a_target_that_is_not_connected_is_tried_for_ever_and_never_stalled() {
    let world = World::new("unconnected").await;
    let operator = world.all_in_one(&[]).await;
    let target = "i-00000000000000abc";
    let mut following = world.follow("orders").await;
    world
        .create(&world.session_with("orders", json!({ "target": { "id": target } })))
        .await;
    let session = following
        .until("what is wrong", |session| {
            is_false(session, "TargetConnected", "TargetNotConnected")
                && status(session).next_retry_time.is_some()
        })
        .await;
    assert_eq!(
        (condition(&session, "Ready"), reason(&session, "Ready")),
        ("False", "Progressing")
    );
    assert_eq!(reason(&session, "Reconciling"), "Retrying");
    assert!(message(&session, "TargetConnected").contains(target));
    // So many tries last longer than the delay after which other troubles are Stalled.
    world.wait_calls(Operation::StartSession, 6).await;
    let events = world.events_of("orders", "TargetNotConnected").await;
    assert_eq!(
        (events.len(), events[0].series.is_none()),
        (1, true),
        "told once: {events:?}"
    );

    let _agent = world.start_agent(target, None).await;
    let session = following.until("that it heals", is_ready).await;
    assert_eq!(reason(&session, "TargetConnected"), "Connected");
    assert_eq!(status(&session).next_retry_time, None);
    let stalled = following
        .versions
        .iter()
        .find(|session| !condition(session, "Stalled").is_empty());
    assert_eq!(stalled, None, "Flux gives up at once on Stalled");
    world.connect("orders", "db").await;
    operator.stop().await.expect("it ends well");
}

#[tokio::test]
async fn denied_access_is_told_once_stalls_later_and_heals_by_itself() {
    let world = World::new("denied").await;
    let operator = world.all_in_one(&["--stalled-after=5s"]).await;
    world.fail(Operation::StartSession, "AccessDeniedException");
    let mut following = world.follow("orders").await;
    world.create(&world.session("orders")).await;
    let denied = |session: &SsmSession| is_false(session, "AwsReachable", "AccessDenied");
    following
        .until("Stalled", |session| {
            denied(session) && is_stalled(session, "AccessDenied")
        })
        .await;
    let said = following.versions.iter().position(denied);
    let stalled = |session: &SsmSession| !condition(session, "Stalled").is_empty();
    let stalled = following.versions.iter().position(stalled);
    assert!(
        said < stalled,
        "a role that was applied in the same sync arrives late"
    );

    world.wait_calls(Operation::StartSession, 2).await;
    let events = world.events_of("orders", "AccessDenied").await;
    assert_eq!(
        (events.len(), events[0].series.is_none()),
        (1, true),
        "{events:?}"
    );

    world.mend();
    // The relay's call may succeed before the controller's.
    let healed =
        |session: &SsmSession| is_ready(session) && reason(session, "AwsReachable") == "Reachable";
    let session = following.until("that it heals", healed).await;
    assert_eq!(status(&session).next_retry_time, None);
    assert_eq!(world.events_of("orders", "AccessDenied").await.len(), 1);
    operator.stop().await.expect("it ends well");
}

#[tokio::test]
async fn an_agent_too_old_for_the_multiplexer_is_told_and_its_session_terminated() {
    let world = World::new("old").await;
    let operator = world.all_in_one(&[]).await;
    let target = "i-0000000000000001d";
    let agent = world.start_agent(target, Some("3.0.196.0")).await;
    world
        .create(&world.session_with("orders", json!({ "target": { "id": target } })))
        .await;
    let session = world
        .wait("orders", "what is wrong", |session| {
            is_stalled(session, "UnsupportedSessionType")
        })
        .await;
    assert_eq!(
        (condition(&session, "Ready"), reason(&session, "Ready")),
        ("False", "Failed")
    );
    assert!(message(&session, "Stalled").contains("3.0.196.0"));
    assert_eq!(condition(&session, "Available"), "False");
    let aws = world
        .wait_aws("its session is terminated", |aws| {
            aws.sessions
                .first()
                .is_some_and(|session| session.status == Status::Terminated)
        })
        .await;
    let first = aws.sessions[0].id.clone();
    let session = world
        .wait("orders", "the end in history", |session| {
            crate::looks::ended(session, &first).is_some()
        })
        .await;
    let end = crate::looks::ended(&session, &first).expect("an end");
    assert_eq!(end.end_reason, Some(EndReason::StartFailed));

    // It is tried all the same, so that an updated agent is found.
    agent.shutdown().await;
    let _updated = world.start_agent(target, None).await;
    world.wait_ready("orders").await;
    world.connect("orders", "db").await;
    operator.stop().await.expect("it ends well");
}

#[tokio::test]
async fn a_refused_destination_is_said_and_changes_nothing_else_and_a_successful_dial_clears_it() {
    let world = World::new("refused").await;
    let operator = world.all_in_one(&[]).await;
    // Bound and not listening: it refuses, and nobody else can take its port.
    let socket = TcpSocket::new_v4().expect("a socket");
    let loopback = "127.0.0.1:0".parse().expect("an address");
    socket.bind(loopback).expect("loopback has a free port");
    let number = socket.local_addr().expect("an address").port();
    let ports = json!({ "ports": [port("db", 5432, number)] });
    world.create(&world.session_with("orders", ports)).await;
    let before = world.wait_ready("orders").await;
    assert_eq!(
        condition(&before, "DestinationReachable"),
        "",
        "nobody has dialled"
    );

    let mut refused = world.dial("orders", "db").await;
    assert!(
        !matches!(refused.read(&mut [0]).await, Ok(1..)),
        "the client is reset"
    );
    let session = world
        .wait("orders", "what is wrong", |session| {
            is_false(session, "DestinationReachable", "Refused")
        })
        .await;
    assert_eq!(
        condition(&session, "Available"),
        "True",
        "a client can dial"
    );
    assert!(is_ready(&session), "the declared state is reached");
    assert!(message(&session, "DestinationReachable").contains("port db"));

    let destination = socket.listen(8).expect("it listens");
    let (_client, accepted) = tokio::join!(world.dial("orders", "db"), destination.accept());
    accepted.expect("the destination is dialled");
    let session = world
        .wait("orders", "that it heals", |session| {
            reason(session, "DestinationReachable") == "Dialled"
        })
        .await;
    assert_eq!(
        live(&session, "db").map(|session| session.session_id),
        live(&before, "db").map(|session| session.session_id),
        "a refusal ends no session",
    );
    operator.stop().await.expect("it ends well");
}
