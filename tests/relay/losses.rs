//! A network that loses what it carries: frames one by one, or whole connections.

use std::time::Duration;

use ssm_session_operator::broker::{BrokerError, ErrorKind};
use ssm_session_operator::relay::{Failure, Report, State};
use ssm_session_operator::simulator::{Fault, Operation, Overview};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::ground::{Ground, Setting, WAIT_MAX, destination, echo, lost, wait_metric, within};
use crate::transfer::{Server, exchange};
use crate::wait::ask_until;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_that_are_lost_cost_no_byte() {
    let server = Server::start().await.expect("a server");
    let ground = Ground::serving(server.address()).await;
    ground.wait_serving().await;
    ground.inject(Fault::LoseFrames { every: 50 });
    let mut client = ground.dial().await;
    let exchanged = within("an exchange", exchange(&mut client, 2 << 20, 2 << 20)).await;
    exchanged.expect("all bytes");
    let lost = ground.simulator.overview().frames_lost;
    // 2 MiB go up in more than 2,000 messages, and each of them is acknowledged.
    assert!(lost >= 80, "{lost} frames were lost");
    assert_eq!(ground.simulator.sessions().len(), 1);
    assert_eq!(ground.simulator.calls(Operation::ResumeSession), 0);
}

#[tokio::test]
async fn a_handshake_survives_lost_frames() {
    let server = Server::start().await.expect("a server");
    let ground = Ground::new(server.address(), Setting::default()).await;
    ground.inject(Fault::LoseFrames { every: 2 });
    ground.ensure();
    ground.wait_serving().await;
    let mut client = ground.dial().await;
    let exchanged = within("an exchange", exchange(&mut client, 4096, 4096)).await;
    exchanged.expect("all bytes");
    assert!(ground.simulator.overview().frames_lost > 2);
    assert_eq!(ground.simulator.sessions().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_websocket_that_is_reset_in_mid_transfer_is_resumed_and_streams_go_on() {
    let server = Server::start().await.expect("a server");
    let ground = Ground::serving(server.address()).await;
    let serving = ground.wait_serving().await;
    let session = serving.sessions[0].session_id.to_string();
    let mut client = ground.dial().await;
    let transfer = tokio::spawn(async move {
        for _ in 0..4 {
            exchange(&mut client, 2 << 20, 2 << 20).await?;
        }
        anyhow::Ok(())
    });
    let reset = |session| Fault::ResetWebsockets { session };
    ground.interrupt(&session, 3, reset).await;
    let transferred = within("the transfer", transfer).await.expect("a client");
    transferred.expect("all bytes");
    assert_eq!(ground.simulator.calls(Operation::StartSession), 1);
    let metrics = ground.metrics();
    let lost = lost("ConnectionReset", 3);
    assert!(metrics.contains(&lost), "no {lost:?} in\n{metrics}");
}

#[tokio::test]
async fn a_half_closed_client_gets_its_answer_though_no_websocket_was_up_for_longer_than_the_hold()
{
    let (answers, answering) = watch::channel(false);
    let destination = destination(move |mut connection| {
        let mut answering = answering.clone();
        async move {
            let question = connection.read_u8().await?;
            connection.write_u8(question).await?;
            let _ = answering.wait_for(|answers| *answers).await;
            connection.write_u64(42).await
        }
    });
    let setting = Setting::with(|options| {
        options.half_close_hold = Duration::from_secs(6);
    });
    let ground = Ground::new(destination.await, setting).await;
    ground.ensure();
    let session = ground.wait_serving().await.sessions[0].session_id.clone();
    let mut client = asking(&ground).await;
    lose_for_good(&ground, session.as_str(), "AccessDeniedException");
    client.shutdown().await.expect("half closed");
    // The pauses before the tries are of 0.1, 0.2, 0.4, 0.8, 1.6 and 3.2 s at least: longer than the hold.
    let tried = |overview: &Overview| {
        let calls = overview.calls.get(&Operation::ResumeSession);
        calls.is_some_and(|calls| calls.total >= 7)
    };
    ground.wait_aws("tries to resume", tried).await;
    ground.inject(Fault::Clear);
    // What the agent was told while the websocket was away, it knows by now.
    asking(&ground).await;
    answers.send_replace(true);
    let answer = within("the answer", client.read_u64()).await;
    assert_eq!(answer.expect("an answer"), 42);
}

#[tokio::test]
async fn a_session_that_may_not_be_resumed_says_so_until_it_may() {
    let setting = Setting::with(|options| {
        options.hold = Duration::from_millis(200);
    });
    let ground = Ground::new(echo().await, setting).await;
    ground.ensure();
    let session = ground.wait_serving().await.sessions[0].session_id.clone();
    lose_for_good(&ground, session.as_str(), "AccessDeniedException");
    let denied = |report: &Report| {
        let of_resume = |error: &BrokerError| {
            (error.operation, error.kind) == ("ResumeSession", ErrorKind::AccessDenied)
        };
        let failure = report.failure.as_ref();
        failure.is_some_and(|failure| matches!(failure, Failure::Broker(error) if of_resume(error)))
    };
    let report = ground.shelf.wait_last("what AWS says", denied).await;
    assert_eq!((report.state, report.ready), (State::Serving, false));
    ground.inject(Fault::Clear);
    let well = |report: &Report| report.ready && report.failure.is_none();
    ground.shelf.wait_last("a resumed session", well).await;
    assert_eq!(ground.simulator.calls(Operation::StartSession), 1);
}

/// Takes a session's websockets away, and lets nobody resume it before faults are cleared.
fn lose_for_good(ground: &Ground, session: &str, code: &str) {
    ground.inject(Fault::Fail {
        operation: Operation::ResumeSession,
        calls: u32::MAX,
        code: code.to_owned(),
    });
    ground.inject(Fault::CloseWebsockets {
        session: session.to_owned(),
    });
}

/// A client that was heard.
async fn asking(ground: &Ground) -> TcpStream {
    let mut client = ground.dial().await;
    client.write_u8(7).await.expect("sent");
    let heard = within("the first answer", client.read_u8()).await;
    assert_eq!(heard.expect("an answer"), 7);
    client
}

/// Clients at once.
const PLACES: usize = 8;

/// What a stream takes while nothing is sent.
const STREAM_BYTES: usize = 64 << 10;

const BYTES_UP: &str = "ssm_operator_relay_client_bytes_total{direction=\"Up\"}";

#[tokio::test]
async fn clients_that_break_while_no_websocket_is_up_leave_their_places_to_others() {
    let setting = Setting::with(|options| {
        options.connections_max = PLACES;
    });
    let ground = Ground::new(echo().await, setting).await;
    ground.ensure();
    let session = ground.wait_serving().await.sessions[0].session_id.clone();
    let mut first = Vec::new();
    for _ in 0..PLACES {
        first.push(heard(&ground).await);
    }
    lose_for_good(&ground, session.as_str(), "InternalServerError");
    wait_metric(&ground, &lost("ClosedByService", 1)).await;

    // Each says more than its stream takes, so that its upload waits when it breaks.
    let mut saying = JoinSet::new();
    for mut client in first {
        client.set_zero_linger().expect("it can be reset");
        saying.spawn(async move { client.write_all(&vec![7; 64 << 20]).await });
    }
    let waits = async || {
        let metrics = ground.metrics();
        let mut lines = metrics.lines();
        let up = lines.find_map(|line| line.strip_prefix(BYTES_UP))?;
        let up: usize = up.trim().parse().ok()?;
        (up >= PLACES * STREAM_BYTES).then_some(())
    };
    let waits = ask_until(WAIT_MAX, waits).await;
    waits.expect("uploads that wait");
    saying.shutdown().await;
    wait_metric(&ground, "ssm_operator_relay_connections 0").await;

    let mut next = ground.dial().await;
    next.write_u8(42).await.expect("it is held");
    ground.inject(Fault::Clear);
    let answer = within("the echo", next.read_u8()).await;
    assert_eq!(answer.expect("there is a place"), 42);
}

/// A client of an echo that was heard.
async fn heard(ground: &Ground) -> TcpStream {
    let mut client = ground.dial().await;
    client.write_u8(1).await.expect("sent");
    let echo = within("the echo", client.read_u8()).await;
    assert_eq!(echo.expect("an echo"), 1);
    client
}
