//! What sessions keep in memory together has a limit, and each of them goes on below it.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{Either, select};
use ssm_session_operator::relay::{Inherited, Report};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::ground::{Ground, REMOTE, Setting, WAIT_MAX, destination, listener, wait_metric};
use crate::recorder::Shelf;
use crate::transfer::{ask, exchange, hear, serve};
use crate::wait::ask_until;

/// A small part of what the sessions of these tests would keep.
const BUFFERS_MAX: usize = 4 << 20;

/// Sessions with clients that send or receive without end, and their clients.
const BUSY: usize = 2;
const CLIENTS: usize = 16;

/// More than sockets and the agent take in a client's stead, together with those of its neighbours.
const CLIENT_BYTES: u64 = 512 << 10;

/// For what is work and not only waiting: unoptimized, and beside everything else that a machine with two cores does.
const BULK_MAX: Duration = Duration::from_mins(5);

/// First byte of a client whose destination is to read at once, and of one whose destination is to wait.
const NOW: u8 = 1;
const LATER: u8 = 2;

/// A destination that serves transfers, some of them only once it is told to.
async fn patient() -> (SocketAddr, watch::Sender<bool>) {
    let (reads, reading) = watch::channel(false);
    let address = destination(move |mut connection| {
        let mut reading = reading.clone();
        async move {
            if connection.read_u8().await? == LATER {
                let _ = reading.wait_for(|reads| *reads).await;
            }
            serve(connection).await.map_err(io::Error::other)
        }
    });
    (address.await, reads)
}

async fn ground(destination: SocketAddr, buffers_max: usize) -> Ground {
    let setting = Setting::with(|options| {
        options.buffers_max = buffers_max;
        // Nobody is reset for the others' sake here.
        options.stall_limit = 10 * WAIT_MAX;
    });
    Ground::new(destination, setting).await
}

/// Where clients dial a listener of that name, with a session of its own.
async fn serving(ground: &Ground, name: &str) -> SocketAddr {
    let shelf = Arc::new(Shelf::default());
    let spec = ground.spec(1, REMOTE);
    let inherited = Inherited::default();
    let (relay, id) = (&ground.relay, listener(name));
    relay.ensure(&id, spec, inherited, shelf.clone());
    let listens = |report: &Report| report.port.is_some();
    let report = shelf.wait_for("a port", listens).await;
    ([127, 0, 0, 1], report.port.expect("a port")).into()
}

fn buffered(ground: &Ground) -> usize {
    let metrics = ground.metrics();
    let mut lines = metrics.lines();
    let bytes = lines.find_map(|line| line.strip_prefix("ssm_operator_relay_buffered_bytes "));
    bytes.expect("a gauge").parse().expect("bytes")
}

/// Drives `future`, and looks at what is kept again and again.
async fn watched<F: Future>(ground: &Ground, future: F) -> F::Output {
    let watching = async {
        loop {
            let held = buffered(ground);
            assert!(held <= BUFFERS_MAX, "{held} bytes are kept");
            for _ in 0..16 {
                tokio::task::yield_now().await;
            }
        }
    };
    let future = timeout(BULK_MAX, future);
    match select(pin!(future), pin!(watching)).await {
        Either::Left((output, _)) => output.expect("it ends"),
        Either::Right((never, _)) => never,
    }
}

/// Waits until so much is kept that others feel it.
async fn wait_crowded(ground: &Ground) {
    let crowded = async || (buffered(ground) > BUFFERS_MAX / 2).then_some(());
    let crowded = ask_until(WAIT_MAX, crowded).await;
    let held = buffered(ground);
    assert!(crowded.is_some(), "only {held} bytes are kept");
}

async fn client(address: SocketAddr, what: u8) -> TcpStream {
    let mut client = TcpStream::connect(address).await.expect("it listens");
    client.write_u8(what).await.expect("sent");
    client
}

#[tokio::test]
async fn clients_whose_destination_does_not_read_fill_the_budget_and_no_more_and_others_go_on() {
    let (destination, reads) = patient().await;
    let ground = ground(destination, BUFFERS_MAX).await;
    let mut sending = JoinSet::new();
    for session in 0..BUSY {
        let address = serving(&ground, &format!("busy-{session}")).await;
        for _ in 0..CLIENTS {
            let mut client = client(address, LATER).await;
            sending.spawn(async move { exchange(&mut client, CLIENT_BYTES, 1024).await });
        }
    }
    watched(&ground, wait_crowded(&ground)).await;

    let mut other = client(serving(&ground, "other").await, NOW).await;
    let others = exchange(&mut other, 1 << 20, 1 << 20);
    let others = watched(&ground, others).await;
    others.expect("all bytes");

    reads.send_replace(true);
    let sent = watched(&ground, sending.join_all()).await;
    assert_eq!(sent.len(), BUSY * CLIENTS);
    for sent in sent {
        sent.expect("all bytes");
    }
}

#[tokio::test]
async fn clients_that_do_not_read_fill_the_budget_and_no_more_and_lose_nothing() {
    const DOWN_BYTES: u64 = 16 << 20;
    let (destination, _reads) = patient().await;
    let ground = ground(destination, BUFFERS_MAX).await;
    let mut asking = Vec::new();
    for session in 0..BUSY {
        let address = serving(&ground, &format!("busy-{session}")).await;
        let mut client = client(address, NOW).await;
        let sent = ask(&mut client, 16, DOWN_BYTES).await.expect("sent");
        asking.push((client, sent));
    }
    watched(&ground, wait_crowded(&ground)).await;

    let mut other = client(serving(&ground, "other").await, NOW).await;
    let others = exchange(&mut other, 1 << 20, 1 << 20);
    let others = watched(&ground, others).await;
    others.expect("all bytes");

    for (client, sent) in &mut asking {
        let heard = hear(client, *sent, DOWN_BYTES);
        let heard = watched(&ground, heard).await;
        heard.expect("all bytes");
    }
}

#[tokio::test]
async fn sessions_without_memory_to_spare_go_on() {
    let (destination, _reads) = patient().await;
    let ground = ground(destination, 0).await;
    let mut exchanging = JoinSet::new();
    for session in 0..2 {
        let address = serving(&ground, &format!("poor-{session}")).await;
        for _ in 0..CLIENTS {
            let mut client = client(address, NOW).await;
            exchanging.spawn(async move { exchange(&mut client, 128 << 10, 128 << 10).await });
        }
    }
    let exchanged = timeout(BULK_MAX, exchanging.join_all()).await;
    for exchanged in exchanged.expect("they end") {
        exchanged.expect("all bytes");
    }
}

#[tokio::test]
async fn what_a_session_kept_is_given_back_with_it() {
    let (destination, _reads) = patient().await;
    let ground = ground(destination, BUFFERS_MAX).await;
    let address = serving(&ground, "busy").await;
    let mut sending = JoinSet::new();
    for _ in 0..CLIENTS {
        let mut client = client(address, LATER).await;
        sending.spawn(async move { exchange(&mut client, CLIENT_BYTES, 1024).await });
    }
    let some = async || (buffered(&ground) > 256 << 10).then_some(());
    let some = ask_until(WAIT_MAX, some).await;
    assert!(some.is_some(), "only {} bytes are kept", buffered(&ground));
    ground.relay.shutdown(Duration::from_secs(10)).await;
    wait_metric(&ground, "ssm_operator_relay_buffered_bytes 0").await;
    let limit = format!("ssm_operator_relay_buffers_max_bytes {BUFFERS_MAX}");
    wait_metric(&ground, &limit).await;
    sending.shutdown().await;
}
