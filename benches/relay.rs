//! What a relay costs whoever goes through it: bytes, round trips and connections through a listener, next to the same
//! over plain TCP straight to the destination, in the same run and taken in turns.
//!
//! Everything is in this process and on loopback: clients, the relay with its AWS broker, the simulated gateway and
//! agent, and the destination. A byte through the relay so passes four sockets instead of one, is framed, digested and
//! acknowledged, and all of it shares the machine's cores: the speed is that of the whole chain, and a floor for the
//! relay's own. What the relay alone spends on a byte is in `process.rs`.
//!
//! How to read it: a machine's load changes both columns, so compare ratios between runs, not speeds. Throughput is a
//! share of plain TCP's (more is better), a round trip a multiple of its (less is better). The last lines have an agent
//! that sleeps 1 ms after each message that it sends, as a real one does: there the download's ratio is to what these
//! sleeps alone allow, and near 1 it says that a real download is as slow as its agent and not as its relay.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::cast_precision_loss,
    clippy::print_stdout,
    reason = "a benchmark prints what it has measured, and ends when it can't"
)]

#[allow(dead_code, reason = "the tests use all of it")]
#[path = "../tests/relay/ground.rs"]
mod ground;
#[allow(dead_code, reason = "the tests use all of it")]
#[path = "../tests/relay/recorder.rs"]
mod recorder;
#[path = "../tests/support/wait.rs"]
mod wait;

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ssm_session_operator::simulator::Pace;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use ground::{Ground, Setting};

/// Bytes of one transfer, all its streams together.
const TRANSFER_BYTES: u64 = 32 << 20;

/// Streams that share the transfer.
const STREAMS: u64 = 16;

/// Medians of so many transfers are compared.
const TRANSFERS: usize = 5;

/// A message of a chatty protocol: most of what is sent and waited for is small.
const ECHO: &[u8; 5] = b"query";

/// Round trips on one connection; their median is compared.
const ROUND_TRIPS: usize = 500;

/// Connections one after the other; a listener takes 256 at once, so none waits for the last ones to be cleared away.
const CONNECTIONS: u32 = 200;

/// Bytes of the download from the agent that sleeps: some 10 s.
const PACED_BYTES: u64 = 8 << 20;

/// What such an agent sends between two sleeps, and for how long it sleeps.
const PACED_MESSAGE_BYTES: u64 = 1024;
const PACED_PAUSE: Duration = Duration::from_millis(1);

/// Sleeps that are timed to know what they allow on this machine.
const PAUSES: u32 = 1000;

/// Bytes written and read at once.
const CHUNK_BYTES: usize = 64 << 10;

/// First byte of a connection: how many bytes go up and down, then the bytes; the destination says when it has all.
const TRANSFER_FOLLOWS: u8 = b'T';

/// First byte of a connection: everything behind it comes back.
const ECHO_FOLLOWS: u8 = b'E';

/// First byte of a connection: it comes back, and the destination closes.
const CLOSE_FOLLOWS: u8 = b'C';

#[tokio::main]
async fn main() {
    if cfg!(debug_assertions) {
        println!("built without optimization: these figures say nothing");
    }
    let destination = ground::destination(serve).await;
    println!(
        "everything on loopback and in one process: whole chain, see the head of benches/relay.rs\n"
    );
    unthrottled(destination).await;
    paced(destination).await;
}

/// Next to plain TCP, with an agent that sends as fast as it can.
async fn unthrottled(destination: SocketAddr) {
    let ground = Ground::serving(destination).await;
    ground.wait_serving().await;
    let routes = [destination, ground.address().await];

    let rows = [
        ("upload, 1 stream", 1, Way::Up),
        ("download, 1 stream", 1, Way::Down),
        ("upload, 16 streams", STREAMS, Way::Up),
        ("download, 16 streams", STREAMS, Way::Down),
    ];
    println!("{:<24}{:>14}{:>14}{:>8}", "", "plain TCP", "relay", "ratio");
    for (name, streams, way) in rows {
        let (mut plain, mut relayed) = (Vec::new(), Vec::new());
        for _ in 0..TRANSFERS {
            plain.push(transfer(routes[0], streams, way).await);
            relayed.push(transfer(routes[1], streams, way).await);
        }
        let bytes = TRANSFER_BYTES as f64;
        let [plain, relayed] = [plain, relayed].map(|times| bytes / 1e6 / median(times));
        print_row(name, plain, relayed, "MB/s", 0);
    }

    let [plain, relayed] = [
        round_trips(routes[0]).await.expect("plain round trips"),
        round_trips(routes[1]).await.expect("round trips"),
    ];
    print_row("round trip, 5 bytes", plain * 1e6, relayed * 1e6, "us", 0);

    let [plain, relayed] = [
        connections(routes[0]).await.expect("plain connections"),
        connections(routes[1]).await.expect("connections"),
    ];
    print_row("connections, in turn", plain, relayed, "/s", 0);
}

/// Next to its own sleeps, with an agent that is as slow as a real one.
async fn paced(destination: SocketAddr) {
    let setting = Setting {
        pace: Pace::Faithful,
        ..Setting::default()
    };
    let ground = Ground::new(destination, setting).await;
    ground.ensure();
    ground.wait_serving().await;
    let address = ground.address().await;

    let begun = Instant::now();
    for _ in 0..PAUSES {
        tokio::time::sleep(PACED_PAUSE).await;
    }
    let pause = begun.elapsed().as_secs_f64() / f64::from(PAUSES);
    let allowed = PACED_MESSAGE_BYTES as f64 / 1e6 / pause;

    let begun = Instant::now();
    exchange(address, 0, PACED_BYTES).await.expect("a download");
    let relayed = PACED_BYTES as f64 / 1e6 / begun.elapsed().as_secs_f64();
    println!(
        "\n{:<24}{:>14}{:>14}{:>8}",
        "", "agent's pace", "relay", "ratio"
    );
    print_row("download, 1 stream", allowed, relayed, "MB/s", 2);

    let plain = transfer(destination, 1, Way::Up).await;
    let relayed = transfer(address, 1, Way::Up).await;
    let [plain, relayed] = [plain, relayed].map(|time| TRANSFER_BYTES as f64 / 1e6 / time);
    println!("{:<24}{:>14}{:>14}{:>8}", "", "plain TCP", "relay", "ratio");
    print_row("upload, 1 stream", plain, relayed, "MB/s", 0);
}

#[derive(Clone, Copy)]
enum Way {
    Up,
    Down,
}

/// Seconds that a transfer takes, dialling included.
async fn transfer(address: SocketAddr, streams: u64, way: Way) -> f64 {
    let begun = Instant::now();
    let mut exchanges = JoinSet::new();
    for _ in 0..streams {
        let (up_bytes, down_bytes) = match way {
            Way::Up => (TRANSFER_BYTES / streams, 0),
            Way::Down => (0, TRANSFER_BYTES / streams),
        };
        exchanges.spawn(exchange(address, up_bytes, down_bytes));
    }
    while let Some(exchanged) = exchanges.join_next().await {
        exchanged.expect("a client").expect("a transfer");
    }
    begun.elapsed().as_secs_f64()
}

/// Sends and receives, and returns when the destination has all and said so.
async fn exchange(address: SocketAddr, up_bytes: u64, down_bytes: u64) -> io::Result<()> {
    let mut connection = TcpStream::connect(address).await?;
    connection.set_nodelay(true)?;
    connection.write_u8(TRANSFER_FOLLOWS).await?;
    connection.write_u64(up_bytes).await?;
    connection.write_u64(down_bytes).await?;
    send(&mut connection, up_bytes).await?;
    connection.read_u8().await?;
    receive(&mut connection, down_bytes).await
}

/// The median in seconds, on a connection that is up.
async fn round_trips(address: SocketAddr) -> io::Result<f64> {
    let mut connection = TcpStream::connect(address).await?;
    connection.set_nodelay(true)?;
    connection.write_u8(ECHO_FOLLOWS).await?;
    let mut times = Vec::with_capacity(ROUND_TRIPS);
    let mut answer = *ECHO;
    for _ in 0..ROUND_TRIPS {
        let begun = Instant::now();
        connection.write_all(ECHO).await?;
        connection.read_exact(&mut answer).await?;
        times.push(begun.elapsed().as_secs_f64());
    }
    Ok(median(times))
}

/// Connections a second: opened, a byte sent, the same byte received, closed by the destination. The other order would
/// measure the hold: to the relay, a client that has closed is one that may still wait for its answer.
async fn connections(address: SocketAddr) -> io::Result<f64> {
    let begun = Instant::now();
    for _ in 0..CONNECTIONS {
        let mut connection = TcpStream::connect(address).await?;
        connection.set_nodelay(true)?;
        connection.write_u8(CLOSE_FOLLOWS).await?;
        let mut answer = Vec::with_capacity(1);
        connection.read_to_end(&mut answer).await?;
        assert_eq!(answer, [CLOSE_FOLLOWS]);
    }
    Ok(f64::from(CONNECTIONS) / begun.elapsed().as_secs_f64())
}

/// The destination: does what the first byte of a connection asks for.
async fn serve(mut connection: TcpStream) -> io::Result<()> {
    connection.set_nodelay(true)?;
    match connection.read_u8().await? {
        ECHO_FOLLOWS => {
            let (mut reader, mut writer) = connection.split();
            tokio::io::copy(&mut reader, &mut writer).await.map(drop)
        }
        CLOSE_FOLLOWS => connection.write_u8(CLOSE_FOLLOWS).await,
        _ => {
            let up_bytes = connection.read_u64().await?;
            let down_bytes = connection.read_u64().await?;
            receive(&mut connection, up_bytes).await?;
            connection.write_u8(TRANSFER_FOLLOWS).await?;
            send(&mut connection, down_bytes).await
        }
    }
}

async fn send(connection: &mut TcpStream, bytes: u64) -> io::Result<()> {
    let source = tokio::io::repeat(7).take(bytes);
    let mut source = tokio::io::BufReader::with_capacity(CHUNK_BYTES, source);
    tokio::io::copy_buf(&mut source, connection).await.map(drop)
}

async fn receive(connection: &mut TcpStream, bytes: u64) -> io::Result<()> {
    let source = connection.take(bytes);
    let mut source = tokio::io::BufReader::with_capacity(CHUNK_BYTES, source);
    let received = tokio::io::copy_buf(&mut source, &mut tokio::io::sink()).await?;
    if received == bytes {
        Ok(())
    } else {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn print_row(name: &str, baseline: f64, relayed: f64, unit: &str, digits: usize) {
    let [one, other] = [baseline, relayed].map(|value| format!("{value:.digits$} {unit}"));
    println!("{name:<24}{one:>14}{other:>14}{:>8.3}", relayed / baseline);
}
