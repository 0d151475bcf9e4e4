//! Bytes arrive, all of them and no others.

use std::time::Duration;

use ssm_session_operator::relay::{Destination, Report};
use ssm_session_operator::simulator::{Fault, Operation, Pace};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::ground::{Ground, Setting, within};
use crate::transfer::{Server, exchange};

/// For what is work and not only waiting: unoptimized, and beside everything else that a machine with two cores does.
const BULK_MAX: Duration = Duration::from_mins(5);

async fn exchange_over(ground: &Ground, up_bytes: u64, down_bytes: u64) {
    let mut client = ground.dial().await;
    let exchange = exchange(&mut client, up_bytes, down_bytes);
    within("the exchange", exchange).await.expect("all bytes");
}

#[tokio::test]
async fn a_faithful_agent_gets_and_gives_every_byte() {
    let server = Server::start().await.expect("a server");
    let setting = Setting {
        pace: Pace::Faithful,
        ..Setting::default()
    };
    let ground = Ground::new(server.address(), setting).await;
    ground.ensure();
    exchange_over(&ground, 256 << 10, 256 << 10).await;
    let dialled = |report: &Report| report.destination == Some(Destination::Dialled);
    ground.shelf.wait_last("the dial's outcome", dialled).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_mebibytes_pass_each_way_over_twenty_connections() {
    const EACH_BYTES: u64 = (64_u64 << 20).div_ceil(20);
    let server = Server::start().await.expect("a server");
    let ground = Ground::serving(server.address()).await;
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let mut client = ground.dial().await;
        clients.spawn(async move { exchange(&mut client, EACH_BYTES, EACH_BYTES).await });
    }
    let exchanged = timeout(BULK_MAX, clients.join_all()).await;
    for exchanged in exchanged.expect("they end") {
        exchanged.expect("all bytes");
    }
}

#[tokio::test]
async fn many_clients_share_one_session() {
    let server = Server::start().await.expect("a server");
    let ground = Ground::serving(server.address()).await;
    let address = ground.address().await;
    let clients: Vec<_> = (0..32_u64)
        .map(|n| {
            tokio::spawn(async move {
                let mut client = TcpStream::connect(address).await.expect("it listens");
                exchange(&mut client, n * 4096, (32 - n) * 4096).await
            })
        })
        .collect();
    for client in clients {
        let exchanged = within("an exchange", client).await.expect("a client");
        exchanged.expect("all bytes");
    }
    assert_eq!(ground.simulator.calls(Operation::StartSession), 1);
    // The claim, the session, that it serves, and the first dial: traffic is not recorded.
    assert!(ground.shelf.reports().len() <= 4);
    let session = ground.simulator.sessions().remove(0);
    assert_eq!(
        (session.client_websockets, session.client_websockets_signed),
        (1, 1)
    );
}

#[tokio::test]
async fn a_websocket_that_the_service_closes_costs_no_byte_and_no_session() {
    let server = Server::start().await.expect("a server");
    let ground = Ground::serving(server.address()).await;
    let serving = ground.wait_serving().await;
    let session = serving.sessions[0].session_id.to_string();
    let mut client = ground.dial().await;
    let transfer = tokio::spawn(async move {
        // Several exchanges on one connection, so that closes hit both directions.
        for _ in 0..4 {
            exchange(&mut client, 2 << 20, 2 << 20).await?;
        }
        anyhow::Ok(())
    });
    let close = |session| Fault::CloseWebsockets { session };
    ground.interrupt(&session, 3, close).await;
    let transferred = within("the transfer", transfer).await.expect("a client");
    transferred.expect("all bytes");
    assert_eq!(ground.simulator.calls(Operation::StartSession), 1);
    assert_eq!(
        ground.shelf.last().expect("a report").sessions,
        serving.sessions
    );
}

#[tokio::test]
async fn a_client_that_dials_before_the_session_is_up_is_held_and_served() {
    let server = Server::start().await.expect("a server");
    let ground = Ground::new(server.address(), Setting::default()).await;
    ground.inject(Fault::Fail {
        operation: Operation::StartSession,
        calls: u32::MAX,
        code: "TargetNotConnected".to_owned(),
    });
    ground.ensure();
    let mut client = ground.dial().await;
    let failed = |report: &ssm_session_operator::relay::Report| report.failure.is_some();
    ground.shelf.wait_for("a failed start", failed).await;
    ground.inject(Fault::Clear);
    let exchange = exchange(&mut client, 4096, 4096);
    within("the exchange", exchange).await.expect("all bytes");
}
