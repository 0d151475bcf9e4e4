//! Deletions that somebody does not take part in: the relay is dead, or AWS is down.

use kube::api::ListParams;
use ssm_session_operator::simulator::{Fault, Operation};
use tokio::net::TcpStream;

use crate::listeners::live_session;
use crate::transfer;
use crate::world::{WAIT_MAX, World};

#[tokio::test]
async fn without_any_relay_the_controller_terminates_the_sessions_of_what_is_deleted() {
    let world = World::new("no-relay").await;
    let controller = world.controller(&[]).await;
    let relay = world.relay("relay-a", &[]).await;
    world.create(&world.session("orders")).await;
    world.wait_available("orders").await;
    let session = live_session(&world.wait_serving("orders").await);

    relay.kill().await.expect("it can be killed");
    world.delete("orders").await;
    world.wait_gone("orders").await;
    world.wait_terminated(&session).await;
    world.assert_nothing_is_left().await;
    controller.stop().await.expect("it ends well");
}

#[tokio::test]
async fn without_aws_a_deletion_ends_the_traffic_at_once_and_the_sessions_when_it_is_back() {
    let world = World::new("no-aws").await;
    let controller = world.controller(&[]).await;
    let relay = world.relay("relay-a", &[]).await;
    world.create(&world.session("orders")).await;
    world.wait_available("orders").await;
    let session = live_session(&world.wait_serving("orders").await);
    let one = std::slice::from_ref(&session);
    let mut connection = world.dial("orders", "db").await;
    let endpoint = connection.peer_addr().expect("it is connected");
    transfer::exchange(&mut connection, 1000, 1000)
        .await
        .expect("all bytes arrive");

    let down = Fault::Fail {
        operation: Operation::TerminateSession,
        calls: u32::MAX,
        code: "InternalServerError".to_owned(),
    };
    world.simulator.inject(down).expect("a fault");
    world.delete("orders").await;
    transfer::dead(&mut connection, WAIT_MAX)
        .await
        .expect("the client is told");
    let refused = TcpStream::connect(endpoint).await;
    refused.expect_err("nobody listens any more");
    assert_eq!(world.live_sessions(), one, "nobody could end it");

    // No user's namespace hangs on AWS.
    world.wait_gone("orders").await;
    let events = world.events("orders").await;
    assert!(
        events
            .iter()
            .any(|event| event.starts_with("TerminationPending: ")),
        "{events:?}"
    );
    let listener = world.listener_of("orders").await.expect("the API answers");
    let listener = listener.expect("the listener is the wish to terminate");
    assert!(listener.metadata.deletion_timestamp.is_some());
    let all = ListParams::default();
    let services = world.services().list(&all).await.expect("the API answers");
    let slices = world.slices().list(&all).await.expect("the API answers");
    assert!(services.items.is_empty() && slices.items.is_empty());
    assert_eq!(world.live_sessions(), one, "nobody could end it");

    world.simulator.inject(Fault::Clear).expect("a fault");
    world.wait_terminated(&session).await;
    world.assert_nothing_is_left().await;
    relay.stop().await.expect("it ends well");
    controller.stop().await.expect("it ends well");
}
