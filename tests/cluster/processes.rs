//! A controller and two relays as processes of their own: killed, restarted and replaced while bytes flow.

use ssm_session_operator::crd::listener::EndReason;
use ssm_session_operator::simulator::Operation;

use crate::listeners::{live_session, port, serves};
use crate::transfer;
use crate::world::{MORTAL, WAIT_MAX, World};

/// Bytes each way of one exchange: some hundred messages.
const BYTES: u64 = 300_000;

#[tokio::test]
async fn when_a_relay_is_killed_its_clients_notice_and_the_other_takes_over() {
    let world = World::new("killed").await;
    let controller = world.controller(&[]).await;
    let victim = world.relay("relay-a", MORTAL).await;
    world.create(&world.session("orders")).await;
    world.wait_available("orders").await;
    let old = live_session(&world.wait_serving("orders").await);
    let mut connection = world.dial("orders", "db").await;
    transfer::exchange(&mut connection, BYTES, BYTES)
        .await
        .expect("all bytes arrive");
    let survivor = world.relay("relay-b", &[]).await;
    world.wait_lease("relay-b").await;

    victim.kill().await.expect("it can be killed");
    transfer::dead(&mut connection, WAIT_MAX)
        .await
        .expect("the client is told");

    let after = world
        .wait_listener("orders", "served by the other relay", |listener| {
            serves(listener).is_some_and(|status| status.relay == "relay-b")
        })
        .await;
    assert_ne!(live_session(&after), old);
    world.wait_endpoints("orders", port(&after)).await;
    world.wait_terminated(&old).await;
    world.wait_ended("orders", &old, EndReason::RelayLost).await;
    let mut connection = world.dial("orders", "db").await;
    transfer::exchange(&mut connection, BYTES, BYTES)
        .await
        .expect("all bytes arrive");

    world.delete("orders").await;
    world.wait_gone("orders").await;
    world.assert_nothing_is_left().await;
    survivor.stop().await.expect("it ends well");
    controller.stop().await.expect("it ends well");
}

#[tokio::test]
async fn a_relay_that_is_restarted_in_place_takes_its_port_back() {
    let world = World::new("restarted").await;
    let controller = world.controller(&[]).await;
    let first = world.relay("relay-a", &[]).await;
    world.create(&world.session("orders")).await;
    world.wait_available("orders").await;
    let before = world.wait_serving("orders").await;
    let old = live_session(&before);
    let incarnation = serves(&before).expect("it is served").incarnation.clone();

    first.kill().await.expect("it can be killed");
    let second = world.relay("relay-a", &[]).await;
    let after = world
        .wait_listener("orders", "served by the new run", |listener| {
            serves(listener).is_some_and(|status| status.incarnation != incarnation)
        })
        .await;
    assert_eq!(port(&after), port(&before));
    world.wait_endpoints("orders", port(&before)).await;
    world.wait_terminated(&old).await;
    world.wait_ended("orders", &old, EndReason::RelayLost).await;
    let mut connection = world.dial("orders", "db").await;
    transfer::exchange(&mut connection, BYTES, BYTES)
        .await
        .expect("all bytes arrive");

    world.delete("orders").await;
    world.wait_gone("orders").await;
    world.assert_nothing_is_left().await;
    second.stop().await.expect("it ends well");
    controller.stop().await.expect("it ends well");
}

#[tokio::test]
async fn a_controller_that_dies_disturbs_no_stream_and_its_successor_ends_what_was_begun() {
    let world = World::new("successor").await;
    let first = world.controller(&[]).await;
    let relay = world.relay("relay-a", &[]).await;
    for name in ["orders", "bills"] {
        world.create(&world.session(name)).await;
    }
    for name in ["orders", "bills"] {
        world.wait_available(name).await;
    }
    let orders = live_session(&world.wait_serving("orders").await);
    let bills = live_session(&world.wait_serving("bills").await);
    let mut connection = world.dial("orders", "db").await;
    let mut carry = async || {
        let carried = transfer::exchange(&mut connection, BYTES, BYTES).await;
        carried.expect("all bytes arrive");
    };
    carry().await;

    first.kill().await.expect("it can be killed");
    world.delete("bills").await;
    carry().await;
    assert_eq!(
        world.live_sessions().len(),
        2,
        "nobody ends what only a controller may"
    );

    let second = world.controller(&[]).await;
    world.wait_gone("bills").await;
    world.wait_terminated(&bills).await;
    world.wait_ten_polls().await;
    carry().await;
    assert_eq!(world.live_sessions(), [orders]);
    assert_eq!(world.simulator.calls(Operation::StartSession), 2);

    world.delete("orders").await;
    world.wait_gone("orders").await;
    world.assert_nothing_is_left().await;
    relay.stop().await.expect("it ends well");
    second.stop().await.expect("it ends well");
}
