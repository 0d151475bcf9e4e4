//! A controller and two relays as processes of their own: killed, restarted and replaced while bytes flow.

use ssm_session_operator::crd::listener::EndReason;
use ssm_session_operator::simulator::Operation;

use crate::listeners::{live_session, port, serves};
use crate::transfer::dead;
use crate::world::{MORTAL, WAIT_MAX, World, carry};

#[tokio::test]
async fn when_a_relay_is_killed_its_clients_notice_and_the_other_takes_over() {
    let (world, controller, victim, before) = World::serving_apart("killed", MORTAL).await;
    let old = live_session(&before);
    let mut connection = world.connect("orders", "db").await;
    let survivor = world.relay("relay-b", &[]).await;
    world.wait_lease("relay-b").await;

    victim.kill().await.expect("it can be killed");
    dead(&mut connection, WAIT_MAX)
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
    world.connect("orders", "db").await;

    world.remove("orders").await;
    survivor.stop().await.expect("it ends well");
    controller.stop().await.expect("it ends well");
}

#[tokio::test]
async fn a_relay_that_is_restarted_in_place_takes_its_port_back() {
    let (world, controller, first, before) = World::serving_apart("restarted", &[]).await;
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
    world.connect("orders", "db").await;

    world.remove("orders").await;
    second.stop().await.expect("it ends well");
    controller.stop().await.expect("it ends well");
}

#[tokio::test]
async fn a_controller_that_dies_disturbs_no_stream_and_its_successor_ends_what_was_begun() {
    let (world, first, relay, orders) = World::serving_apart("successor", &[]).await;
    let orders = live_session(&orders);
    world.create(&world.session("bills")).await;
    world.wait_available("bills").await;
    let bills = live_session(&world.wait_serving("bills").await);
    let mut connection = world.connect("orders", "db").await;

    first.kill().await.expect("it can be killed");
    world.delete("bills").await;
    carry(&mut connection).await;
    assert_eq!(
        world.live_sessions().len(),
        2,
        "nobody ends what only a controller may"
    );

    let second = world.controller(&[]).await;
    world.wait_gone("bills").await;
    world.wait_terminated(&bills).await;
    world.wait_ten_polls().await;
    carry(&mut connection).await;
    assert_eq!(world.live_sessions(), [orders]);
    assert_eq!(world.simulator.calls(Operation::StartSession), 2);

    world.remove("orders").await;
    relay.stop().await.expect("it ends well");
    second.stop().await.expect("it ends well");
}
