//! A bug costs the listener or the session that it hits, and nobody else.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use ssm_session_operator::relay::{EndReason, Inherited, Report, State};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::brokers::Around;
use crate::ground::{Ground, REMOTE, Setting, aws, echo, listener, wait_reset, within};
use crate::recorder::{Mode, Shelf};

async fn echoed(client: &mut TcpStream) {
    client.write_u64(42).await.expect("sent");
    let echoed = within("the echo", client.read_u64()).await;
    assert_eq!(echoed.expect("an echo"), 42);
}

#[tokio::test]
async fn a_listener_that_panics_is_dropped_alone_and_served_anew_when_it_is_wished_for() {
    let ground = Ground::serving(echo().await).await;
    let other = Arc::new(Shelf::default());
    let (spec, inherited) = (ground.spec(1, REMOTE), Inherited::default());
    ground
        .relay
        .ensure(&listener("b"), spec, inherited, other.clone());
    let listens = |report: &Report| report.port.is_some();
    let port = other.wait_for("a port of b", listens).await.port;
    let address = ("127.0.0.1", port.expect("a port"));
    let mut bystander = TcpStream::connect(address).await.expect("it listens");
    echoed(&mut bystander).await;
    let mut client = ground.dial().await;
    echoed(&mut client).await;
    let serving = ground.wait_serving().await;

    ground.shelf.set(Mode::Panic);
    ground.ensure_spec(ground.spec(2, REMOTE));
    wait_reset(&mut client).await;
    ground.wait_listeners(1).await;
    assert_eq!(ground.relay.listeners(), [listener("b")]);
    assert!(ground.metrics().contains("ssm_operator_relay_listeners 1"));
    assert!(
        ground
            .metrics()
            .contains("ssm_operator_relay_connections 1")
    );
    echoed(&mut bystander).await;

    ground.shelf.set(Mode::Keep);
    let inherited = Inherited {
        port: serving.port,
        sessions: serving.sessions.clone(),
    };
    ground.ensure_with(ground.spec(3, REMOTE), inherited);
    let again = |report: &Report| {
        let ended = report.sessions.last().and_then(|last| last.end.as_ref());
        let lost = ended.is_some_and(|end| end.reason == EndReason::RelayLost);
        report.generation == 3 && report.state == State::Serving && lost
    };
    let report = ground.shelf.wait_last("a new session", again).await;
    assert_eq!(report.port, serving.port);
    echoed(&mut ground.dial().await).await;
    echoed(&mut bystander).await;
}

#[tokio::test]
async fn a_tunnel_that_panics_ends_its_session_and_another_one_serves() {
    let around = Arc::new(Around::new(aws()));
    let broker = around.clone();
    let ground = Ground::with_broker(echo().await, Setting::default(), |_, _| broker).await;
    around.panics.store(true, Ordering::Relaxed);
    ground.ensure();
    let follows = |report: &Report| {
        let first = report.sessions.last().and_then(|last| last.end.as_ref());
        let why = first.map(|end| end.message.as_str());
        report.state == State::Serving && why == Some("the tunnel's task has ended")
    };
    ground
        .shelf
        .wait_last("a session that follows", follows)
        .await;
    echoed(&mut ground.dial().await).await;
    assert_eq!(ground.simulator.sessions().len(), 2);
}
