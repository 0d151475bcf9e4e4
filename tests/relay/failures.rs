//! Whatever goes wrong on the way to a session: nothing is served that is not on record, and nothing is left behind.

use std::time::Duration;

use ssm_session_operator::broker::ErrorKind;
use ssm_session_operator::relay::{EndReason, Failure, RelayOptions, Report, State};
use ssm_session_operator::simulator::{Fault, Operation, Overview, Status};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::ground::{Ground, REMOTE, Setting, echo, listener, wait_reset, within};
use crate::recorder::Mode;

async fn ground(adjust: impl FnOnce(&mut RelayOptions)) -> Ground {
    let setting = Setting::with(adjust);
    Ground::new(echo().await, setting).await
}

/// Waits for the first report with a failure.
async fn wait_failure(ground: &Ground) -> (Report, Failure) {
    let failed = |report: &Report| report.failure.is_some();
    ground.shelf.wait_for("a failure", failed).await;
    let reports = ground.shelf.reports();
    let report = reports.into_iter().find(failed).expect("it was there");
    let failure = report.failure.clone().expect("a failure");
    (report, failure)
}

/// Waits until the first session is on record as ended for `reason`, and a later one serves.
async fn wait_follower(ground: &Ground, reason: EndReason) {
    let follows = |report: &Report| {
        let last = report
            .sessions
            .last()
            .and_then(|session| session.end.as_ref());
        report.state == State::Serving && last.is_some_and(|end| end.reason == reason)
    };
    ground
        .shelf
        .wait_for("a session that follows", follows)
        .await;
    let over = |aws: &Overview| aws.sessions[0].status == Status::Terminated;
    ground.wait_aws("its end", over).await;
}

#[tokio::test]
async fn without_a_record_of_the_claim_aws_is_not_called() {
    let ground = ground(|_| {}).await;
    ground.shelf.set(Mode::Fail);
    ground.ensure();
    ground.shelf.wait_calls(10).await;
    assert_eq!(ground.simulator.calls(Operation::StartSession), 0);
    ground.shelf.set(Mode::Keep);
    ground.wait_serving().await;
    assert_eq!(ground.simulator.calls(Operation::StartSession), 1);
}

#[tokio::test]
async fn a_session_that_can_not_be_recorded_serves_nobody_and_is_terminated() {
    let ground = ground(|options| options.record_timeout = Duration::from_millis(300)).await;
    ground.shelf.set(Mode::FailSessions);
    ground.ensure();
    let mut client = ground.dial().await;
    client.write_u64(42).await.expect("sent");
    ground.wait_all_over().await;
    let held = client.try_read(&mut [0; 1]).map_err(|error| error.kind());
    assert_eq!(held, Err(std::io::ErrorKind::WouldBlock), "it was served");
    let (_, failure) = wait_failure(&ground).await;
    assert!(matches!(failure, Failure::Recording(_)), "{failure}");
    ground.shelf.set(Mode::Keep);
    let echoed = within("the echo", client.read_u64()).await;
    assert_eq!(echoed.expect("an echo"), 42);
}

#[tokio::test]
async fn a_recorder_that_never_answers_is_asked_again() {
    let ground = ground(|options| options.record_timeout = Duration::from_millis(300)).await;
    ground.shelf.set(Mode::Hang);
    ground.ensure();
    ground.shelf.wait_calls(1).await;
    ground.shelf.set(Mode::Keep);
    ground.wait_serving().await;
}

#[tokio::test]
async fn a_session_goes_on_while_nothing_can_be_recorded() {
    let ground = ground(|_| {}).await;
    ground.ensure();
    ground.wait_serving().await;
    ground.shelf.set(Mode::Fail);
    ground.ensure_spec(ground.spec(2, REMOTE));
    ground.shelf.wait_calls(10).await;
    let mut client = ground.dial().await;
    client.write_u64(42).await.expect("sent");
    let echoed = within("the echo", client.read_u64()).await;
    assert_eq!(echoed.expect("an echo"), 42);
}

#[tokio::test]
async fn a_listener_that_belongs_to_another_relay_is_dropped_without_a_word() {
    let ground = ground(|_| {}).await;
    ground.ensure();
    let mut client = ground.dial().await;
    client.write_u8(1).await.expect("sent");
    within("the echo", client.read_u8()).await.expect("an echo");
    ground.wait_serving().await;
    let reports = ground.shelf.reports();
    ground.shelf.set(Mode::NotOurs);
    ground.ensure_spec(ground.spec(2, REMOTE));
    wait_reset(&mut client).await;
    ground.wait_all_over().await;
    ground.wait_listeners(0).await;
    assert_eq!(ground.shelf.reports(), reports);
}

#[tokio::test]
async fn a_listener_that_is_not_ours_from_the_beginning_costs_aws_nothing() {
    let ground = ground(|_| {}).await;
    ground.shelf.set(Mode::NotOurs);
    ground.ensure();
    ground.wait_listeners(0).await;
    assert_eq!(ground.simulator.calls(Operation::StartSession), 0);
    assert_eq!(ground.shelf.reports(), []);
}

#[tokio::test]
async fn a_start_whose_answer_is_lost_is_tried_again() {
    let ground = ground(|_| {}).await;
    ground.inject(Fault::SwallowStarts { calls: 1 });
    ground.ensure();
    let (report, failure) = wait_failure(&ground).await;
    assert_eq!((report.state, report.sessions.len()), (State::Waiting, 0));
    let Failure::Broker(error) = failure else {
        panic!("{failure}");
    };
    assert_eq!(error.kind, ErrorKind::Unavailable);
    let serving = ground.wait_serving().await;
    let sessions = ground.simulator.sessions();
    assert_eq!((sessions.len(), serving.sessions.len()), (2, 1));
    assert_eq!(serving.sessions[0].session_id.as_str(), sessions[1].id);
}

#[tokio::test]
async fn a_session_without_a_token_is_terminated_and_followed() {
    let ground = ground(|_| {}).await;
    ground.inject(Fault::EmptyTokens {
        operation: Operation::StartSession,
        calls: 1,
    });
    ground.ensure();
    let (_, failure) = wait_failure(&ground).await;
    assert!(matches!(failure, Failure::DataChannel(_)), "{failure}");
    wait_follower(&ground, EndReason::StartFailed).await;
}

#[tokio::test]
async fn a_session_whose_agent_stays_silent_is_terminated_and_followed() {
    let ground = ground(|options| options.handshake_timeout = Duration::from_secs(1)).await;
    ground.inject(Fault::SilentStarts { calls: 1 });
    ground.ensure();
    let (_, failure) = wait_failure(&ground).await;
    assert_eq!(failure.to_string(), "data channel: no handshake within 1s");
    wait_follower(&ground, EndReason::StartFailed).await;
}

#[tokio::test]
async fn documents_that_start_no_port_session_are_reported_and_terminated() {
    for document in ["AWS-StartSSHSession", "SSM-SessionManagerRunShell"] {
        let ground = ground(|_| {}).await;
        ground.ensure_spec(ground.spec(1, document));
        let (report, failure) = wait_failure(&ground).await;
        assert!(
            matches!(failure, Failure::Unsupported(_)),
            "{document}: {failure}"
        );
        assert_eq!(report.state, State::Waiting);
        ground.stop();
        let last = ground.shelf.wait_ended().await;
        let ended = |reason| {
            last.sessions
                .iter()
                .any(|s| s.end.as_ref().is_some_and(|e| e.reason == reason))
        };
        assert!(ended(EndReason::StartFailed), "{document}: {last:?}");
        ground.wait_all_over().await;
    }
}

#[tokio::test]
async fn the_agents_words_are_in_the_report() {
    let ground = ground(|_| {}).await;
    let mut spec = ground.spec(1, REMOTE);
    let metadata = vec!["169.254.169.254".to_owned()];
    spec.request.parameters.insert("host".to_owned(), metadata);
    ground.ensure_spec(spec);
    let (_, failure) = wait_failure(&ground).await;
    let text = failure.to_string();
    assert!(
        text.ends_with("Forwarding to IP address 169.254.169.254 is forbidden."),
        "{text}"
    );
}

#[tokio::test]
async fn what_aws_refuses_is_classified_and_tried_again() {
    for (code, kind) in [
        ("ThrottlingException", ErrorKind::Throttled),
        ("TargetNotConnected", ErrorKind::TargetNotConnected),
        ("AccessDeniedException", ErrorKind::AccessDenied),
    ] {
        let ground = ground(|_| {}).await;
        ground.inject(Fault::Fail {
            operation: Operation::StartSession,
            calls: 2,
            code: code.to_owned(),
        });
        ground.ensure();
        let (report, failure) = wait_failure(&ground).await;
        let Failure::Broker(error) = failure else {
            panic!("{failure}");
        };
        assert_eq!(error.kind, kind);
        assert_eq!(report.state, State::Waiting);
        assert!(report.retry_at.is_some());
        let serving = ground.wait_serving().await;
        assert_eq!((serving.failure, serving.retry_at), (None, None));
        assert_eq!(ground.simulator.calls(Operation::StartSession), 3);
    }
}

/// A listener that is stopped, and AWS refuses so often to end its session.
async fn refused(calls: u32) -> Ground {
    let ground = ground(|_| {}).await;
    ground.ensure();
    ground.wait_serving().await;
    ground.inject(Fault::Fail {
        operation: Operation::TerminateSession,
        calls,
        code: "AccessDeniedException".to_owned(),
    });
    ground.stop();
    ground
}

#[tokio::test]
async fn a_session_that_aws_refuses_to_end_keeps_its_listener_only_while_the_record_is_ours() {
    let ground = refused(u32::MAX).await;
    // Each refusal is a reason to ask whose the record is.
    ground.shelf.wait_calls(20).await;
    assert_eq!(ground.relay.listeners(), [listener("a")]);
    ground.shelf.set(Mode::NotOurs);
    ground.wait_listeners(0).await;
    let metrics = ground.metrics();
    assert!(metrics.contains("relay_sessions 0"), "{metrics}");
}

#[tokio::test]
async fn a_session_that_aws_refuses_to_end_keeps_no_process_and_stays_on_record() {
    let ground = refused(u32::MAX).await;
    let shutdown = ground.relay.shutdown(Duration::from_hours(1));
    within("the shutdown", shutdown).await;
    let last = ground.shelf.last().expect("a report");
    assert_ne!(last.state, State::Ended);
    assert!(last.sessions.iter().all(|session| session.end.is_none()));
}

#[tokio::test]
async fn terminate_session_is_called_until_aws_answers() {
    let ground = refused(7).await;
    let last = ground.shelf.wait_ended().await;
    assert!(last.sessions.iter().all(|session| session.end.is_some()));
    assert_eq!(ground.simulator.calls(Operation::TerminateSession), 8);
    let early = ground.shelf.reports();
    let live = |report: &Report| report.sessions.iter().any(|session| session.end.is_none());
    assert!(
        early
            .iter()
            .any(|report| report.port.is_none() && live(report)),
        "still on record"
    );
}
