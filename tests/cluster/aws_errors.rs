//! What AWS refuses: what is said of it, that it is tried again without a hot loop, and that it heals by itself.

use std::collections::BTreeSet;

use serde_json::json;
use ssm_session_operator::crd::condition::ReadyReason;
use ssm_session_operator::crd::listener::{EndReason, ErrorClass, ListenerState};
use ssm_session_operator::crd::{SsmListener, SsmSession};
use ssm_session_operator::simulator::{Fault, Operation, Status};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpSocket;

use crate::looks::{Following, is_ready, is_stalled, live, message, port, status};
use crate::world::{SECRET_KEY, World, condition, reason};

/// Whether a condition is `False` for this reason.
fn is_false(session: &SsmSession, kind: &str, why: &str) -> bool {
    condition(session, kind) == "False" && reason(session, kind) == why
}

/// Fails every start from now on.
fn fail_starts(world: &World, code: &str) {
    let fault = Fault::Fail {
        operation: Operation::StartSession,
        calls: u32::MAX,
        code: code.to_owned(),
    };
    world.simulator.inject(fault).expect("a fault");
}

/// Waits until StartSession was called so often.
async fn wait_starts(world: &World, count: u64) {
    world
        .wait_aws("more starts", |aws| {
            aws.calls
                .get(&Operation::StartSession)
                .is_some_and(|calls| calls.total >= count)
        })
        .await;
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
    wait_starts(&world, 6).await;

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
    let operator = world.all_in_one(&[]).await;
    fail_starts(&world, "AccessDeniedException");
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

    let calls = world.simulator.calls(Operation::StartSession);
    wait_starts(&world, calls + 2).await;
    let events = world.events_of("orders", "AccessDenied").await;
    assert_eq!(
        (events.len(), events[0].series.is_none()),
        (1, true),
        "{events:?}"
    );

    world.simulator.inject(Fault::Clear).expect("a fault");
    let session = following.until("that it heals", is_ready).await;
    assert_eq!(reason(&session, "AwsReachable"), "Reachable");
    assert_eq!(status(&session).next_retry_time, None);
    assert_eq!(world.events_of("orders", "AccessDenied").await.len(), 1);
    operator.stop().await.expect("it ends well");
}

/// What is seen of a start that fails for as long as its cause lasts.
struct Failing {
    /// The kind of error that the relay reports.
    class: ErrorClass,
    /// The condition that says so, with its status and reason.
    said: (&'static str, &'static str, &'static str),
    /// A part of what it says.
    words: &'static str,
    /// What `Ready` comes to: `Failed` while Stalled, `Progressing` while only time is needed.
    ready: ReadyReason,
    /// Reasons of the Events that are told before it heals.
    told: &'static [&'static str],
}

/// A session whose starts fail: that is said in its conditions and in its Events, it is tried again and again, each time
/// at the moment that is written down, and it carries bytes once the cause is gone.
async fn fails_and_heals(world: &World, failing: &Failing, heal: impl FnOnce(&World)) {
    let operator = world.all_in_one(&[]).await;
    let mut sessions = world.follow("orders").await;
    let mut listeners: Following<SsmListener> = Following::new(world.listeners(), None).await;
    world.create(&world.session("orders")).await;
    let (kind, status_said, why) = failing.said;
    let session = sessions
        .until("what is wrong", |session| {
            condition(session, kind) == status_said
                && reason(session, kind) == why
                && status(session).next_retry_time.is_some()
        })
        .await;
    let words = message(&session, kind);
    assert!(words.contains(failing.words), "{words}");
    assert_eq!(
        (condition(&session, "Ready"), reason(&session, "Ready")),
        ("False", failing.ready.as_str())
    );
    assert_eq!(
        (
            condition(&session, "Available"),
            reason(&session, "Available")
        ),
        ("False", "NoSession")
    );

    // Each failed start is written down with the time of the next one, which no other has.
    let retry_at = |listener: &SsmListener| {
        let status = listener.status.as_ref()?;
        let failed = status.last_error.as_ref()?.class == failing.class;
        status.retry_at.clone().filter(|_| failed)
    };
    let mut retries = BTreeSet::new();
    while retries.len() < 3 {
        let new = |listener: &SsmListener| {
            retry_at(listener).is_some_and(|retry| !retries.contains(&retry))
        };
        let listener = listeners.until("another retry", new).await;
        retries.extend(retry_at(&listener));
    }
    for told in failing.told {
        world
            .until(&format!("an Event: {told}"), async || {
                Ok(world.told("orders").await.contains(*told))
            })
            .await;
    }
    let mut told = world.told("orders").await;
    // A start that is over at once may be over before anybody has seen it as one.
    told.remove("SessionStarted");
    assert!(
        told.iter().eq(failing.told),
        "{told:?} is told, not {:?}",
        failing.told
    );

    heal(world);
    // The polls share the rate limiter, which may take a while to speed up again after throttling.
    let healed =
        |session: &SsmSession| is_ready(session) && reason(session, "AwsReachable") == "Reachable";
    let session = sessions.until("that it heals", healed).await;
    assert_eq!(status(&session).next_retry_time, None);
    let serves = |listener: &SsmListener| {
        let status = listener.status.as_ref();
        status.is_some_and(|status| {
            status.state == ListenerState::Serving
                && status.last_error.is_none()
                && status.retry_at.is_none()
        })
    };
    listeners.until("that it serves", serves).await;
    let retries: BTreeSet<_> = listeners.versions.iter().filter_map(retry_at).collect();
    let calls = world.simulator.calls(Operation::StartSession);
    let calls_max = retries.len() as u64 + 1;
    assert!(calls <= calls_max, "{calls} calls for {retries:?}");
    let mut versions = sessions.versions.iter();
    let stalled = versions.any(|session| !condition(session, "Stalled").is_empty());
    assert_eq!(
        stalled,
        failing.ready == ReadyReason::Failed,
        "Stalled is for what needs somebody"
    );
    world.connect("orders", "db").await;
    world.remove("orders").await;
    operator.stop().await.expect("it ends well");
}

/// The same, while AWS answers StartSession with this error.
async fn answers(name: &str, code: &str, failing: Failing) {
    let world = World::new(name).await;
    fail_starts(&world, code);
    fails_and_heals(&world, &failing, mend).await;
}

fn mend(world: &World) {
    world.simulator.inject(Fault::Clear).expect("a fault");
}

#[tokio::test]
async fn throttled_starts_are_said_and_each_retry_is_one_call() {
    let failing = Failing {
        class: ErrorClass::Throttled,
        said: ("AwsReachable", "False", "Throttled"),
        words: "ThrottlingException",
        ready: ReadyReason::Progressing,
        told: &[],
    };
    answers("throttled", "ThrottlingException", failing).await;
}

#[tokio::test]
async fn an_error_inside_of_aws_is_said_and_waited_for() {
    let failing = Failing {
        class: ErrorClass::AwsUnavailable,
        said: ("AwsReachable", "False", "AwsUnavailable"),
        words: "InternalServerError",
        ready: ReadyReason::Progressing,
        told: &[],
    };
    answers("internal", "InternalServerError", failing).await;
}

#[tokio::test]
async fn an_invalid_document_is_stalled_at_once_and_tried_all_the_same() {
    let failing = Failing {
        class: ErrorClass::InvalidDocument,
        said: ("Stalled", "True", "InvalidDocument"),
        words: "port db: StartSession: InvalidDocument",
        ready: ReadyReason::Failed,
        told: &[],
    };
    answers("document", "InvalidDocument", failing).await;
}

#[tokio::test]
async fn sessions_without_a_token_are_terminated_and_followed() {
    let world = World::new("tokenless").await;
    let empty = Fault::EmptyTokens {
        operation: Operation::StartSession,
        calls: u32::MAX,
    };
    world.simulator.inject(empty).expect("a fault");
    let failing = Failing {
        class: ErrorClass::DataChannel,
        said: ("Reconciling", "True", "Retrying"),
        words: "StartSession gave no token",
        ready: ReadyReason::Progressing,
        told: &["SessionEnded"],
    };
    fails_and_heals(&world, &failing, |world| {
        mend(world);
        // Whatever came without a token is ended by then; what comes from now on has one.
        assert!(world.live_sessions().len() <= 1, "they leak");
    })
    .await;
    assert!(world.simulator.sessions().len() > 3);
}

#[tokio::test]
async fn without_credentials_aws_is_not_called_and_they_are_found_when_they_appear() {
    let mut world = World::new("credentials").await;
    let file = world.folder().join("credentials");
    world.credentials = vec![
        ("AWS_SHARED_CREDENTIALS_FILE", file.display().to_string()),
        (
            "AWS_CONFIG_FILE",
            world.folder().join("config").display().to_string(),
        ),
    ];
    let failing = Failing {
        class: ErrorClass::CredentialsUnavailable,
        said: ("AwsReachable", "False", "CredentialsUnavailable"),
        words: "no usable credentials: Environment: ",
        ready: ReadyReason::Progressing,
        told: &[],
    };
    fails_and_heals(&world, &failing, |world| {
        assert!(world.simulator.overview().calls.is_empty(), "AWS is called");
        let key = format!(
            "[default]\naws_access_key_id = AKIAIOSFODNN7EXAMPLE\naws_secret_access_key = {SECRET_KEY}\n"
        );
        std::fs::write(&file, key).expect("the folder takes a file");
    })
    .await;
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
