//! Sessions come and go, the listener's port stays.

use std::io::ErrorKind;
use std::time::Duration;

use jiff::Timestamp;
use ssm_session_operator::broker::{Broker, SessionId};
use ssm_session_operator::relay::{EndReason, Failure, Inherited, Report, SessionRecord, State};
use ssm_session_operator::simulator::{Fault, Operation, Overview, Status};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::ground::{Ground, REMOTE, Setting, aws, echo, request, wait_reset, within};

/// A client that has got an answer through the relay.
async fn connected(ground: &Ground) -> TcpStream {
    let mut client = ground.dial().await;
    client.write_u64(42).await.expect("sent");
    let echoed = within("the echo", client.read_u64()).await;
    assert_eq!(echoed.expect("an echo"), 42);
    client
}

/// The reason for which the session ended that is on record as the `index`th.
fn end(report: &Report, index: usize) -> Option<EndReason> {
    report
        .sessions
        .get(index)?
        .end
        .as_ref()
        .map(|end| end.reason)
}

async fn wait_second_session(ground: &Ground) -> Report {
    let serving = |report: &Report| report.state == State::Serving && end(report, 1).is_some();
    ground.shelf.wait_for("a second session", serving).await
}

fn all_starts_fail() -> Fault {
    Fault::Fail {
        operation: Operation::StartSession,
        calls: u32::MAX,
        code: "TargetNotConnected".to_owned(),
    }
}

#[tokio::test]
async fn a_session_that_is_terminated_in_aws_is_recorded_and_followed_on_the_same_port() {
    let ground = Ground::serving(echo().await).await;
    let mut client = connected(&ground).await;
    let first = ground.wait_serving().await;
    let session = first.sessions[0].session_id.clone();
    let terminated = aws().terminate(&ground.identity(), &session).await;
    terminated.expect("an answer");
    wait_reset(&mut client).await;
    let second = wait_second_session(&ground).await;
    assert_eq!(second.port, first.port);
    assert_eq!(second.sessions[1].session_id, session);
    assert_eq!(end(&second, 1), Some(EndReason::ClosedByService));
    assert_eq!(second.failure, None);
    connected(&ground).await;
}

#[tokio::test]
async fn a_session_that_aws_calls_lost_is_followed_without_being_terminated() {
    let ground = Ground::serving(echo().await).await;
    let mut client = connected(&ground).await;
    let first = ground.wait_serving().await;
    let mut spec = ground.spec(2, REMOTE);
    let lost = first.sessions[0].session_id.clone();
    spec.lost.push((lost, EndReason::TerminatedExternally));
    ground.ensure_spec(spec);
    wait_reset(&mut client).await;
    let second = wait_second_session(&ground).await;
    assert_eq!(end(&second, 1), Some(EndReason::TerminatedExternally));
    assert_eq!(ground.simulator.calls(Operation::TerminateSession), 0);
}

#[tokio::test]
async fn a_client_is_held_while_no_session_is_up_and_reset_after_the_hold() {
    let setting = Setting::with(|options| {
        options.hold = Duration::from_millis(200);
    });
    let ground = Ground::new(echo().await, setting).await;
    ground.inject(all_starts_fail());
    ground.ensure();
    wait_reset(&mut ground.dial().await).await;
    let unready = |report: &Report| report.port.is_some() && !report.ready;
    let report = ground
        .shelf
        .wait_last("that it is not ready", unready)
        .await;
    assert!(matches!(report.failure, Some(Failure::Broker(_))));
    assert!(ground.metrics().contains("outcome=\"HeldTooLong\"} 1"));
}

#[tokio::test]
async fn stop_resets_clients_at_once_and_leaves_nothing_behind() {
    let ground = Ground::serving(echo().await).await;
    let mut client = connected(&ground).await;
    let address = ground.address().await;
    ground.stop();
    wait_reset(&mut client).await;
    let last = ground.shelf.wait_ended().await;
    assert_eq!((last.port, last.ready), (None, false));
    assert_eq!(end(&last, 0), Some(EndReason::Deleted));
    assert!(last.sessions.iter().all(|session| session.end.is_some()));
    assert_eq!(ground.simulator.sessions().len(), 1);
    ground.wait_all_over().await;
    let dialled = TcpStream::connect(address)
        .await
        .map_err(|error| error.kind());
    assert_eq!(dialled.err(), Some(ErrorKind::ConnectionRefused));
    ground.wait_listeners(0).await;
    let metrics = ground.metrics();
    for gauge in [
        "ssm_operator_relay_listeners 0",
        "ssm_operator_relay_sessions 0",
        "ssm_operator_relay_connections 0",
    ] {
        assert!(metrics.contains(gauge), "{metrics}");
    }
}

#[tokio::test]
async fn stop_resets_also_who_was_held() {
    let ground = Ground::new(echo().await, Setting::default()).await;
    ground.inject(all_starts_fail());
    ground.ensure();
    let mut held = ground.dial().await;
    let failed = |report: &Report| report.failure.is_some();
    ground.shelf.wait_for("a failed start", failed).await;
    ground.stop();
    wait_reset(&mut held).await;
    assert_eq!(ground.shelf.wait_ended().await.sessions, []);
}

#[tokio::test]
async fn a_wish_that_changes_moves_to_another_session_on_the_same_port() {
    let ground = Ground::serving(echo().await).await;
    let mut client = connected(&ground).await;
    let first = ground.wait_serving().await;
    ground.ensure_spec(ground.spec(2, "AWS-StartPortForwardingSession"));
    wait_reset(&mut client).await;
    let second = wait_second_session(&ground).await;
    assert_eq!((second.port, second.generation), (first.port, 2));
    assert_eq!(end(&second, 1), Some(EndReason::Replaced));
    let documents = ground.simulator.sessions();
    let documents: Vec<_> = documents
        .iter()
        .map(|session| session.document.as_str())
        .collect();
    assert_eq!(documents, [REMOTE, "AWS-StartPortForwardingSession"]);
}

#[tokio::test]
async fn shutdown_ends_the_sessions_and_keeps_the_port_for_the_next_run() {
    let ground = Ground::serving(echo().await).await;
    let mut client = connected(&ground).await;
    let serving = ground.wait_serving().await;
    within(
        "the shutdown",
        ground.relay.shutdown(Duration::from_mins(1)),
    )
    .await;
    wait_reset(&mut client).await;
    let last = ground.shelf.last().expect("a report");
    assert_eq!((last.port, last.ready), (serving.port, false));
    assert_eq!(last.state, State::Waiting);
    assert_eq!(end(&last, 0), Some(EndReason::RelayLost));
    ground.wait_all_over().await;
    ground.ensure();
    assert_eq!(
        ground.relay.listeners(),
        [],
        "nothing is served after the shutdown"
    );
}

#[tokio::test]
async fn the_next_run_takes_back_the_port_and_ends_the_sessions_of_the_last() {
    let ground = Ground::new(echo().await, Setting::default()).await;
    let identity = ground.identity();
    let started = aws().start(&identity, &request(REMOTE)).await;
    let old: SessionId = started.expect("a session").session_id;
    // A port that was free a moment ago.
    let port = {
        let probe =
            (10_240..32_768).find_map(|port| std::net::TcpListener::bind(("127.0.0.1", port)).ok());
        probe
            .expect("a free port")
            .local_addr()
            .expect("an address")
            .port()
    };
    let record = SessionRecord {
        session_id: old.clone(),
        identity,
        relay: "relay-1".to_owned(),
        incarnation: "run-0".to_owned(),
        started_at: Timestamp::UNIX_EPOCH,
        end: None,
    };
    let inherited = Inherited {
        port: Some(port),
        sessions: vec![record],
    };
    ground.ensure_with(ground.spec(1, REMOTE), inherited);
    let both = |report: &Report| report.state == State::Serving && end(report, 1).is_some();
    let report = ground
        .shelf
        .wait_for("the new session, and the old one's end", both)
        .await;
    assert_eq!(report.port, Some(port));
    assert_eq!(report.sessions[1].session_id, old);
    assert_eq!(end(&report, 1), Some(EndReason::RelayLost));
    let over = |aws: &Overview| {
        let session = aws.session(old.as_str());
        session.is_some_and(|session| session.status == Status::Terminated)
    };
    ground.wait_aws("the old one's end", over).await;
    connected(&ground).await;
}
