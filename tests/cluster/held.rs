//! Clients that dial while no session is up: they are held and then served, or reset; never left in silence.

use std::io::ErrorKind;
use std::net::Ipv4Addr;

use ssm_session_operator::crd::SsmListener;
use ssm_session_operator::crd::listener::ListenerState;
use ssm_session_operator::simulator::{Fault, Operation};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::world::{WAIT_MAX, World, carry, condition, reason};

/// A world whose agent answers no start until it is mended.
async fn silent_world(name: &str) -> World {
    let world = World::new(name).await;
    world.inject(Fault::SilentStarts { calls: u32::MAX });
    world
}

#[tokio::test]
async fn a_client_that_dials_while_the_session_starts_is_held_and_then_served() {
    let world = silent_world("held").await;
    let operator = world
        .all_in_one(&["--hold=1h", "--handshake-timeout=1s"])
        .await;
    world.create(&world.session("orders")).await;
    // Its slice leads to the relay already.
    let mut client = world.dial("orders", "db").await;
    // Another start that nobody answers.
    world.wait_calls(Operation::StartSession, 2).await;
    let nothing = client.try_read(&mut [0]).map_err(|error| error.kind());
    assert_eq!(nothing, Err(ErrorKind::WouldBlock), "it is held");
    let session = world.sessions().get("orders").await;
    let session = session.expect("it is there");
    assert_eq!(
        (
            condition(&session, "Available"),
            reason(&session, "Available")
        ),
        ("False", "NoSession")
    );

    world.mend();
    carry(&mut client).await;
    world.remove("orders").await;
    operator.stop().await.expect("it ends well");
}

#[tokio::test]
async fn a_client_that_no_session_serves_in_time_is_reset_and_no_other_is_sent_there() {
    let world = silent_world("reset").await;
    let operator = world
        .all_in_one(&["--hold=1s", "--handshake-timeout=2s"])
        .await;
    world.create(&world.session("orders")).await;
    let port = |listener: &SsmListener| listener.status.as_ref()?.port;
    let listener = world
        .wait_listener("orders", "a port", |listener| port(listener).is_some())
        .await;
    let port = port(&listener).and_then(|port| u16::try_from(port).ok());
    let address = (Ipv4Addr::LOCALHOST, port.expect("a port"));
    let mut client = TcpStream::connect(address).await.expect("it listens");
    let read = timeout(WAIT_MAX, client.read(&mut [0])).await;
    let read = read.expect("no silence").map_err(|error| error.kind());
    assert_eq!(read, Err(ErrorKind::ConnectionReset));
    let unready = |listener: &SsmListener| {
        let status = listener.status.as_ref();
        status.is_some_and(|status| !status.ready && status.state != ListenerState::Serving)
    };
    world.wait_listener("orders", "not ready", unready).await;
    world.wait_endpoints_gone("orders").await;

    world.mend();
    world.wait_ready("orders").await;
    world.connect("orders", "db").await;
    operator.stop().await.expect("it ends well");
}
