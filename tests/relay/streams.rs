//! How connections begin and end: what went wrong is a reset, what ended in order is an end in order.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use ssm_session_operator::relay::{Destination, Inherited, RelayOptions, Report};
use ssm_session_operator::simulator::{Fault, Operation};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc;

use crate::ground::{
    Ground, Setting, WAIT_MAX, destination, echo, listener, nobody, wait_metric, wait_reset, within,
};
use crate::wait::ask_until;

/// Before the count of messages that were measured.
const ROUND_TRIPS: &str = "ssm_operator_relay_round_trip_seconds_count ";

/// Answers one byte with so many.
async fn answer(mut connection: TcpStream, bytes: usize) -> io::Result<()> {
    connection.read_u8().await?;
    say(connection, bytes).await
}

async fn say(mut connection: TcpStream, bytes: usize) -> io::Result<()> {
    let chunk = vec![7; 64 << 10];
    for _ in 0..bytes / chunk.len() {
        connection.write_all(&chunk).await?;
    }
    Ok(())
}

async fn ground(destination: SocketAddr, adjust: impl FnOnce(&mut RelayOptions)) -> Ground {
    let setting = Setting::with(adjust);
    let ground = Ground::new(destination, setting).await;
    ground.ensure();
    ground
}

#[tokio::test]
async fn a_destination_that_refuses_resets_the_client_and_is_reported() {
    let ground = Ground::serving(nobody().await).await;
    wait_reset(&mut ground.dial().await).await;
    let refused = |report: &Report| report.destination == Some(Destination::Refused);
    let report = ground.shelf.wait_last("the refusal", refused).await;
    assert!(report.ready, "a refusal changes nothing for others");
    assert!(
        ground
            .metrics()
            .contains("ssm_operator_relay_destinations_refused_total 1")
    );
}

#[tokio::test]
async fn a_destination_that_says_nothing_and_closes_ends_the_connection_in_order() {
    let silent = destination(|mut connection| async move { connection.shutdown().await }).await;
    let ground = Ground::serving(silent).await;
    let mut client = ground.dial().await;
    let mut rest = Vec::new();
    let read = within("the end", client.read_to_end(&mut rest)).await;
    assert_eq!(read.expect("an orderly end"), 0);
    let dialled = |report: &Report| report.destination == Some(Destination::Dialled);
    ground.shelf.wait_last("the dial's outcome", dialled).await;
}

#[tokio::test]
async fn a_client_s_wait_for_a_stream_and_for_the_first_byte_are_measured_once_each() {
    const BYTES: usize = 1 << 20;
    let ground = Ground::serving(destination(|connection| answer(connection, BYTES)).await).await;
    let mut client = ground.dial().await;
    wait_metric(&ground, "ssm_operator_relay_stream_wait_seconds_count 1").await;
    let first_bytes = |count| format!("ssm_operator_relay_first_byte_seconds_count {count}");
    assert!(ground.metrics().contains(&first_bytes(0)));
    client.write_u8(1).await.expect("a request");
    let mut answer = Vec::new();
    let read = within("the answer", client.read_to_end(&mut answer)).await;
    assert_eq!(read.expect("an orderly end"), BYTES);
    assert!(ground.metrics().contains(&first_bytes(1)));
    assert!(ground.metrics().contains("stream_wait_seconds_count 1"));
}

#[tokio::test]
async fn how_long_the_agent_takes_to_acknowledge_is_measured() {
    let ground = Ground::serving(echo().await).await;
    let mut client = ground.dial().await;
    let said = vec![7; 64 << 10];
    client.write_all(&said).await.expect("sent");
    let mut heard = vec![0; said.len()];
    let read = within("the echo", client.read_exact(&mut heard)).await;
    read.expect("an echo");
    // The echo may overtake the acknowledgements of what it repeats.
    let measured = ask_until(WAIT_MAX, async || {
        let metrics = ground.metrics();
        let mut lines = metrics.lines();
        let count = lines.find_map(|line| line.strip_prefix(ROUND_TRIPS))?;
        (count != "0").then_some(())
    });
    measured.await.expect("a round trip");
}

#[tokio::test]
async fn a_half_closed_client_still_gets_the_whole_answer() {
    const BYTES: usize = 1 << 20;
    let ground = Ground::serving(destination(|connection| answer(connection, BYTES)).await).await;
    let mut client = ground.dial().await;
    client.write_u8(1).await.expect("a request");
    client.shutdown().await.expect("half closed");
    let mut answer = Vec::new();
    let read = within("the answer", client.read_to_end(&mut answer)).await;
    assert_eq!(read.expect("an orderly end"), BYTES);
}

#[tokio::test]
async fn a_half_closed_client_that_reads_slowly_loses_nothing_to_its_silence() {
    const BYTES: usize = 32 << 20;
    let destination = destination(|mut connection| async move {
        match connection.read_u8().await? {
            1 => say(connection, BYTES).await,
            // Silence until the other end closes.
            _ => connection.read_u8().await.map(drop),
        }
    })
    .await;
    let hold = Duration::from_secs(1);
    let ground = ground(destination, |options| options.half_close_hold = hold).await;
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a small buffer");
    let mut slow = socket
        .connect(ground.address().await)
        .await
        .expect("it listens");
    slow.write_u8(1).await.expect("a request");
    slow.shutdown().await.expect("half closed");
    // What these clients wait for takes longer than the hold, each time, over a session of their own.
    ground.relay.ensure(
        &listener("b"),
        ground.spec(1, crate::ground::REMOTE),
        Inherited::default(),
        ground.shelf.clone(),
    );
    let first = ground.address().await.port();
    let another = |report: &Report| report.port.is_some_and(|port| port != first);
    let port = ground.shelf.wait_for("a port of b", another).await.port;
    for _ in 0..4 {
        let address = (Ipv4Addr::LOCALHOST, port.expect("a port"));
        let mut silent = TcpStream::connect(address).await.expect("it listens");
        silent.write_u8(2).await.expect("a request");
        silent.shutdown().await.expect("half closed");
        let mut rest = Vec::new();
        let read = within("the end of silence", silent.read_to_end(&mut rest)).await;
        assert_eq!(read.expect("an orderly end"), 0);
    }
    let mut answer = Vec::new();
    let read = within("the answer", slow.read_to_end(&mut answer)).await;
    assert_eq!(read.expect("an orderly end"), BYTES);
}

#[tokio::test]
async fn a_half_closed_client_that_hears_nothing_is_told_to_the_destination() {
    let (ended, mut end) = mpsc::unbounded_channel();
    let destination = destination(move |mut connection| {
        let ended = ended.clone();
        async move {
            let mut said = Vec::new();
            connection.read_to_end(&mut said).await?;
            ended.send(said).map_err(io::Error::other)
        }
    })
    .await;
    let hold = Duration::from_millis(50);
    let ground = ground(destination, |options| options.half_close_hold = hold).await;
    let mut client = ground.dial().await;
    client
        .write_all(b"all that I have to say")
        .await
        .expect("sent");
    client.shutdown().await.expect("half closed");
    let said = within("the client's end", end.recv()).await;
    assert_eq!(said.as_deref(), Some(&b"all that I have to say"[..]));
    let read = within("the destination's end", client.read(&mut [0; 1])).await;
    assert_eq!(read.expect("an orderly end"), 0);
}

#[tokio::test]
async fn a_client_that_goes_away_is_told_to_the_destination() {
    let (ended, mut end) = mpsc::unbounded_channel();
    let destination = destination(move |mut connection| {
        let ended = ended.clone();
        async move {
            connection.write_u8(1).await?;
            let end = connection.read_u8().await.map_err(|error| error.kind());
            assert_eq!(end, Err(io::ErrorKind::UnexpectedEof));
            ended.send(()).map_err(io::Error::other)
        }
    })
    .await;
    let ground = Ground::serving(destination).await;
    let mut client = ground.dial().await;
    within("a greeting", client.read_u8())
        .await
        .expect("a byte");
    client.set_zero_linger().expect("a reset");
    drop(client);
    within("the destination's end", end.recv()).await;
}

#[tokio::test]
async fn a_client_that_does_not_read_is_reset_when_it_keeps_others_waiting() {
    let destination = destination(|mut connection| async move {
        if connection.read_u8().await? == 1 {
            say(connection, usize::MAX).await
        } else {
            connection.write_u8(8).await?;
            connection.read_u8().await.map(drop)
        }
    })
    .await;
    let limit = Duration::from_millis(500);
    let ground = ground(destination, |options| options.stall_limit = limit).await;
    let mut stuck = ground.dial().await;
    stuck.write_u8(1).await.expect("a request");
    // Bytes flow until every buffer on the way is full; only then does another client come.
    within("the first bytes", stuck.read_u8())
        .await
        .expect("a byte");
    let mut answered = 0;
    while !ground
        .metrics()
        .contains("ssm_operator_relay_streams_stalled_total 1")
    {
        let mut other = ground.dial().await;
        other.write_u8(2).await.expect("a request");
        let answer = within("an answer", other.read_u8()).await;
        assert_eq!(answer.expect("an answer"), 8);
        other.set_zero_linger().expect("a reset");
        answered += 1;
    }
    let told = async {
        while !ground.metrics().contains("outcome=\"Stalled\"} 1") {
            tokio::task::yield_now().await;
        }
    };
    within("the end of a connection whose client does not read", told).await;
    wait_reset(&mut stuck).await;
    assert!(answered > 0);
}

#[tokio::test]
async fn both_families_lead_to_the_same_session() {
    let addresses = vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    let ground = ground(echo().await, |options| options.listen_addresses = addresses).await;
    let port = ground.address().await.port();
    for address in [
        SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
        SocketAddr::from((Ipv6Addr::LOCALHOST, port)),
    ] {
        let mut client = TcpStream::connect(address).await.expect("it listens");
        client.write_u64(42).await.expect("sent");
        let echoed = within("the echo", client.read_u64()).await;
        assert_eq!(echoed.expect("an echo"), 42);
    }
    assert_eq!(ground.simulator.sessions().len(), 1);
}

#[tokio::test]
async fn clients_beyond_the_limit_are_reset() {
    let ground = ground(echo().await, |options| options.connections_max = 1).await;
    let mut first = ground.dial().await;
    first.write_u8(1).await.expect("sent");
    assert_eq!(
        within("the echo", first.read_u8()).await.expect("an echo"),
        1
    );
    wait_reset(&mut ground.dial().await).await;
    first.write_u8(2).await.expect("sent");
    assert_eq!(
        within("the echo", first.read_u8()).await.expect("an echo"),
        2
    );
}

#[tokio::test]
async fn clients_of_one_address_leave_places_to_those_of_others() {
    let ground = ground(echo().await, |options| {
        options.connections_max = 3;
        options.connections_max_per_client = 2;
    });
    let ground = ground.await;
    let mut clients = vec![heard(ground.dial().await).await];
    clients.push(heard(ground.dial().await).await);
    wait_reset(&mut ground.dial().await).await;
    let line = "connections_ended_total{outcome=\"TooManyOfOneClient\"} 1";
    wait_metric(&ground, line).await;
    let socket = TcpSocket::new_v4().expect("a socket");
    let other = SocketAddr::from((Ipv4Addr::new(127, 0, 0, 2), 0));
    socket.bind(other).expect("an address of this host");
    let other = socket.connect(ground.address().await).await;
    clients.push(heard(other.expect("it listens")).await);
    clients.remove(0);
    wait_metric(&ground, "ssm_operator_relay_connections 2").await;
    heard(ground.dial().await).await;
}

/// A client to which its first word was sent back.
async fn heard(mut client: TcpStream) -> TcpStream {
    client.write_u8(1).await.expect("sent");
    let echoed = within("the echo", client.read_u8()).await;
    assert_eq!(echoed.expect("an echo"), 1);
    client
}

/// A destination that says what each of its clients has said, once that has closed. Meanwhile it says more than a
/// client takes at once if it `floods`.
async fn listening(floods: bool) -> (SocketAddr, mpsc::UnboundedReceiver<Vec<u8>>) {
    let (ended, end) = mpsc::unbounded_channel();
    let address = destination(move |connection| {
        let ended = ended.clone();
        async move {
            let (mut reader, mut writer) = connection.into_split();
            let words = vec![1; 64 << 10];
            let flood = async {
                for _ in 0..if floods { 16 } else { 0 } {
                    if writer.write_all(&words).await.is_err() {
                        break;
                    }
                }
                std::future::pending::<()>().await;
            };
            let mut said = Vec::new();
            tokio::select! {
                () = flood => {}
                read = reader.read_to_end(&mut said) => drop(read),
            }
            ended.send(said).map_err(io::Error::other)
        }
    });
    (address.await, end)
}

#[tokio::test]
async fn what_a_client_said_before_it_was_reset_arrives_when_a_session_comes_up() {
    let (destination, mut end) = listening(false).await;
    let ground = Ground::new(destination, Setting::default()).await;
    ground.inject(Fault::throttle(Operation::StartSession, u32::MAX));
    ground.ensure();
    // All of it waits in the relay's socket, and the reset behind it.
    let mut client = ground.dial().await;
    client.write_all(b"my last words").await.expect("sent");
    client.set_zero_linger().expect("a reset");
    wait_metric(&ground, "ssm_operator_relay_connections 1").await;
    drop(client);
    ground.inject(Fault::Clear);
    let said = within("the client's end", end.recv()).await;
    assert_eq!(said.as_deref(), Some(&b"my last words"[..]));
    wait_metric(&ground, "outcome=\"ClientGone\"} 1").await;
}

#[tokio::test]
async fn what_a_client_said_before_it_was_reset_arrives_while_the_destination_talks() {
    let (destination, mut end) = listening(true).await;
    let ground = Ground::serving(destination).await;
    for _ in 0..20 {
        let mut client = ground.dial().await;
        within("the flood", client.read_u8()).await.expect("a byte");
        // The words and the reset arrive together, when the relay may want to write as well as to read.
        let words = client.try_write(b"my last words");
        assert_eq!(words.expect("sent"), 13);
        client.set_zero_linger().expect("a reset");
        drop(client);
        let said = within("the client's end", end.recv()).await;
        assert_eq!(said.as_deref(), Some(&b"my last words"[..]));
    }
}

#[tokio::test]
async fn where_places_are_short_a_half_closed_client_is_held_for_less() {
    let (destination, mut end) = listening(false).await;
    let ground = ground(destination, |options| {
        options.half_close_hold = Duration::from_hours(1);
        options.connections_max = 2;
    });
    let ground = ground.await;
    let mut other = ground.dial().await;
    other.write_u8(1).await.expect("sent");
    let mut client = ground.dial().await;
    client.write_all(b"that is all").await.expect("sent");
    client.shutdown().await.expect("half closed");
    let said = within("the client's end", end.recv()).await;
    assert_eq!(said.as_deref(), Some(&b"that is all"[..]));
    let read = within("the destination's end", client.read(&mut [0; 1])).await;
    assert_eq!(read.expect("an orderly end"), 0);
    drop(other);
}
