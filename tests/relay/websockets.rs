//! Websockets that are lost, in every way that is not the service's polite one.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ssm_session_operator::relay::{EndReason, RelayOptions, Report};
use ssm_session_operator::simulator::{Operation, Overview};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::brokers::Around;
use crate::ground::{Ground, Setting, destination, nobody, wait_metric, within};
use crate::transfer::{Server, exchange};

/// Passes TCP on, until it is told to swallow what passes without a word.
struct Wire {
    address: SocketAddr,
    gateway: watch::Sender<Option<String>>,
    /// Counts the times that all connections there were went dead.
    deaths: watch::Sender<u64>,
}

impl Wire {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (gateway, deaths) = (watch::Sender::new(None), watch::Sender::new(0));
        let (mut leads_to, dying) = (gateway.subscribe(), deaths.clone());
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let gateway = leads_to.wait_for(Option::is_some).await.expect("a gateway");
                let gateway = gateway.clone().expect("a gateway");
                let mut dying = dying.subscribe();
                tokio::spawn(async move {
                    let mut gateway = TcpStream::connect(gateway).await.expect("a gateway");
                    tokio::select! {
                        _ = copy_bidirectional(&mut client, &mut gateway) => {}
                        // Both stay open, and nothing passes any more.
                        _ = dying.changed() => std::future::pending().await,
                    }
                });
            }
        });
        Self {
            address,
            gateway,
            deaths,
        }
    }
}

async fn ground_behind(
    wire: &Wire,
    destination: SocketAddr,
    adjust: impl FnOnce(&mut RelayOptions),
) -> Ground {
    let setting = Setting::with(adjust);
    let base = format!("ws://{}", wire.address);
    let around = |_: &_, aws| Arc::new(Around::leading_to(aws, base)) as Arc<_>;
    let ground = Ground::with_broker(destination, setting, around).await;
    let endpoint = ground.simulator.endpoint();
    let authority = endpoint.trim_start_matches("http://").to_owned();
    wire.gateway.send_replace(Some(authority));
    ground.ensure();
    ground
}

/// Before the count of websockets on which a ping was not answered.
const UNANSWERED: &str = "ssm_operator_relay_websockets_lost_total{reason=\"PingUnanswered\"} ";

fn resumed(overview: &Overview) -> bool {
    overview.sessions.iter().any(|session| session.resumed > 0)
}

#[tokio::test]
async fn a_websocket_that_dies_without_a_word_is_noticed_and_resumed() {
    let (server, wire) = (Server::start().await.expect("a server"), Wire::new().await);
    let ping = |options: &mut RelayOptions| options.ping_interval = Duration::from_millis(500);
    let ground = ground_behind(&wire, server.address(), ping).await;
    let mut client = ground.dial().await;
    within("an exchange", exchange(&mut client, 4096, 4096))
        .await
        .expect("all bytes");
    wire.deaths.send_modify(|deaths| *deaths += 1);
    let exchanged = within("an exchange", exchange(&mut client, 1 << 20, 1 << 20)).await;
    exchanged.expect("all bytes");
    assert!(resumed(&ground.simulator.overview()));
    assert_eq!(ground.simulator.calls(Operation::StartSession), 1);
}

#[tokio::test]
async fn an_idle_session_is_pinged_too() {
    let silent = destination(|mut connection| async move { connection.read_u8().await.map(drop) });
    let (silent, wire) = (silent.await, Wire::new().await);
    let ping = |options: &mut RelayOptions| options.ping_interval = Duration::from_millis(300);
    let ground = ground_behind(&wire, silent, ping).await;
    ground.wait_serving().await;
    wire.deaths.send_modify(|deaths| *deaths += 1);
    ground.wait_aws("a resumed session", resumed).await;
    let metrics = ground.metrics();
    let unanswered = metrics
        .lines()
        .find_map(|line| line.strip_prefix(UNANSWERED));
    assert!(unanswered.is_some_and(|count| count != "0"), "{metrics}");
}

#[tokio::test]
async fn a_websocket_that_is_closed_at_once_is_resumed_ever_more_rarely() {
    let gateway = destination(|connection| async move {
        let websocket = tokio_tungstenite::accept_async(connection).await;
        let closed = websocket.map_err(io::Error::other)?.close(None).await;
        closed.map_err(io::Error::other)
    })
    .await;
    let setting = Setting::with(|options| {
        options.handshake_timeout = Duration::from_secs(2);
    });
    let base = format!("ws://{gateway}");
    let around = |_: &_, aws| Arc::new(Around::leading_to(aws, base)) as Arc<_>;
    let ground = Ground::with_broker(nobody().await, setting, around).await;
    ground.ensure();
    let given_up = |report: &Report| {
        let mut ends = report
            .sessions
            .iter()
            .filter_map(|session| session.end.as_ref());
        ends.any(|end| end.reason == EndReason::StartFailed)
    };
    let report = ground.shelf.wait_for("the session's end", given_up).await;
    let end = report
        .sessions
        .iter()
        .find_map(|session| session.end.clone());
    let why = end.expect("an end").message;
    assert!(why.starts_with("no handshake within 2s: "), "{why}");
    // Its delays of 0.1 s at least, then twice as long each time, leave time for four of them.
    let first = ground.simulator.sessions().remove(0);
    assert!(first.resumed <= 5, "resumed {} times", first.resumed);
}

/// The alert `SsmStartsFailing` counts these.
#[tokio::test]
async fn a_session_whose_websocket_is_denied_is_counted_as_one_whose_start_failed() {
    let gateway = destination(|mut connection| async move {
        if connection.read(&mut [0; 4096]).await? == 0 {
            return Ok(());
        }
        let denied = b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n";
        connection.write_all(denied).await
    })
    .await;
    let setting = Setting::with(|options| {
        options.handshake_timeout = Duration::from_secs(1);
        // One session, and then a pause.
        options.backoff_min = Duration::from_hours(1);
        options.backoff_max = Duration::from_hours(1);
    });
    let base = format!("ws://{gateway}");
    let around = |_: &_, aws| Arc::new(Around::leading_to(aws, base)) as Arc<_>;
    let ground = Ground::with_broker(nobody().await, setting, around).await;
    ground.ensure();
    let counted = "sessions_ended_total{reason=\"StartFailed\"} 1";
    wait_metric(&ground, counted).await;
    let failure = ground.shelf.last().and_then(|report| report.failure);
    let why = failure.expect("a failure").to_string();
    assert!(
        why.contains("refuses the websocket: HTTP status 403"),
        "{why}"
    );
}
