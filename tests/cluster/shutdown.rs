//! Processes that are asked to end: they leave nothing running, and nobody waits for their Leases.

use ssm_session_operator::crd::listener::EndReason;

use crate::listeners::{live_session, port, relay, serves};
use crate::transfer::dead;
use crate::world::{WAIT_MAX, World};

/// Longer than any test waits: what comes about did not wait for it.
const FOR_EVER: &str = "--lease-duration=1h";

#[tokio::test]
async fn a_relay_that_is_asked_to_end_terminates_its_sessions_and_gives_its_lease_back() {
    let (world, controller, stopped, before) = World::serving_apart("shutdown", &[FOR_EVER]).await;
    let (leaving, old) = (relay(&before), live_session(&before));
    let other = world.relay("relay-b", &[FOR_EVER]).await;
    world.wait_lease("relay-b").await;
    let mut connection = world.connect("orders", "db").await;

    stopped.stop().await.expect("its exit code is 0");
    dead(&mut connection, WAIT_MAX)
        .await
        .expect("the client is told");
    let lease = world.lease(&leaving).await.expect("the Lease is there");
    let holder = lease.spec.and_then(|spec| spec.holder_identity);
    assert_eq!(holder.unwrap_or_default(), "", "the Lease is still held");
    world.wait_terminated(&old).await;

    let after = world
        .wait_listener("orders", "served by the other relay", |listener| {
            serves(listener).is_some_and(|status| status.relay != leaving)
        })
        .await;
    world.wait_endpoints("orders", port(&after)).await;
    world.wait_ended("orders", &old, EndReason::RelayLost).await;
    world.connect("orders", "db").await;

    world.remove("orders").await;
    other.stop().await.expect("it ends well");
    controller.stop().await.expect("it ends well");
}

#[tokio::test]
async fn a_stopped_operator_leaves_the_grant_and_the_next_one_serves_it_again() {
    let world = World::new("upgrade").await;
    let first = world.all_in_one(&[FOR_EVER]).await;
    world.create(&world.session("orders")).await;
    world.wait_available("orders").await;
    let before = world.wait_serving("orders").await;
    first.stop().await.expect("its exit code is 0");
    world
        .wait_aws("no session is live in AWS", |_| {
            world.live_sessions().is_empty()
        })
        .await;

    let second = world.all_in_one(&[FOR_EVER]).await;
    let after = world
        .wait_listener("orders", "served by the new run", |listener| {
            serves(listener).is_some_and(|now| {
                Some(&now.incarnation) != serves(&before).map(|then| &then.incarnation)
            })
        })
        .await;
    assert_eq!(port(&after), port(&before));
    world.wait_endpoints("orders", port(&after)).await;
    world.connect("orders", "db").await;
    world.remove("orders").await;
    second.stop().await.expect("it ends well");
}
