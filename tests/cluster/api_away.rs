//! The API server is out of reach: for the whole operator, or for one relay alone.

use serde_json::json;
use ssm_session_operator::crd::listener::EndReason;
use ssm_session_operator::simulator::{Fault, Operation};

use crate::forwarder::Forwarder;
use crate::http::call_ssm;
use crate::listeners::{Versions, live_session, port, relay, serves};
use crate::transfer;
use crate::world::{MORTAL, WAIT_MAX, World};

/// Bytes each way of one exchange: some hundred messages.
const BYTES: u64 = 300_000;

#[tokio::test]
async fn while_the_api_server_refuses_streams_go_on_and_nothing_is_terminated() {
    let noticed = "relays' Leases can't be listed";
    streams_go_on("refuses", Forwarder::cut, noticed, &[]).await;
}

#[tokio::test]
async fn while_the_api_server_is_silent_streams_go_on_and_nothing_is_terminated() {
    let noticed = "the API server does not answer; no relay is taken for dead";
    streams_go_on("silent", Forwarder::silence, noticed, &["--api-timeout=1s"]).await;
}

/// Takes the API server away from the whole operator, until the controller says what it noticed and longer.
async fn streams_go_on(
    name: &str,
    take_away: impl Fn(&Forwarder),
    noticed: &str,
    options: &[&str],
) {
    let mut world = World::new(name).await;
    let (forwarder, kubeconfig) = world.forwarder().await;
    world.kubeconfig = kubeconfig;
    // It leads on, so that what it does with its old caches is seen.
    let leads_on = ["--election-duration=2h", "--election-renew-deadline=1h"];
    let options = [&leads_on, options].concat();
    let mut controller = world.controller(&options).await;
    let mut relay = world.relay("relay-a", MORTAL).await;
    world.create(&world.session("orders")).await;
    world.wait_available("orders").await;
    let before = world.wait_serving("orders").await;
    let session = live_session(&before);
    let mut connection = world.dial("orders", "db").await;
    let mut carry = async || {
        let carried = transfer::exchange(&mut connection, BYTES, BYTES).await;
        carried.expect("all bytes arrive");
    };
    carry().await;

    take_away(&forwarder);
    let noticed = controller.wait_for_log(noticed, WAIT_MAX).await;
    noticed.expect("the controller notices");
    let noticed = relay.wait_for_log("Lease not renewed", WAIT_MAX).await;
    noticed.expect("the relay notices");
    // Longer than the Lease holds, and than the sweeper's grace: both are counted in polls here.
    for _ in 0..4 {
        world.wait_ten_polls().await;
        carry().await;
    }
    let kick = Fault::CloseWebsockets {
        session: session.clone(),
    };
    world.simulator.inject(kick).expect("a fault");
    carry().await;
    // New clients are served as well.
    let mut another = world.dial("orders", "db").await;
    let carried = transfer::exchange(&mut another, BYTES, BYTES).await;
    carried.expect("all bytes arrive");

    forwarder.mend();
    let noticed = "the API server is in reach again";
    let noticed = controller.wait_for_log(noticed, WAIT_MAX).await;
    noticed.expect("the controller notices");
    let renewed = world.lease("relay-a").await.expect("the Lease is there");
    world
        .until("the Lease is renewed again", async || {
            Ok(world.lease("relay-a").await?.spec != renewed.spec)
        })
        .await;
    world.wait_ten_polls().await;
    carry().await;
    let after = world.wait_serving("orders").await;
    assert_eq!(
        (live_session(&after), port(&after)),
        (session, port(&before))
    );
    assert_eq!(world.simulator.calls(Operation::StartSession), 1);
    assert_eq!(world.simulator.calls(Operation::TerminateSession), 0);
    world.wait_ready("orders").await;

    // What is asked for from now on is done again.
    world.create(&world.session("bills")).await;
    world.wait_available("bills").await;
    for name in ["orders", "bills"] {
        world.delete(name).await;
        world.wait_gone(name).await;
    }
    world.assert_nothing_is_left().await;
    relay.stop().await.expect("it ends well");
    controller.stop().await.expect("it ends well");
}

#[tokio::test]
async fn a_relay_that_was_cut_off_while_its_listener_was_moved_overwrites_nothing() {
    let mut world = World::new("cut-off").await;
    let versions = world.record_listeners().await;
    let controller = world.controller(&[]).await;
    let direct = world.kubeconfig.clone();
    let (forwarder, kubeconfig) = world.forwarder().await;
    world.kubeconfig = kubeconfig;
    let mut late = world.relay("relay-a", MORTAL).await;
    world.create(&world.session("orders")).await;
    world.wait_available("orders").await;
    let before = world.wait_serving("orders").await;
    let old = live_session(&before);
    let mut connection = world.dial("orders", "db").await;
    let carried = transfer::exchange(&mut connection, BYTES, BYTES).await;
    carried.expect("all bytes arrive");
    world.kubeconfig = direct;
    let other = world.relay("relay-b", &[]).await;
    world.wait_lease("relay-b").await;

    forwarder.cut();
    let moved = world
        .wait_listener("orders", "served by the other relay", |listener| {
            serves(listener).is_some_and(|status| status.relay == "relay-b")
        })
        .await;
    world.wait_endpoints("orders", port(&moved)).await;
    world.wait_terminated(&old).await;
    transfer::dead(&mut connection, WAIT_MAX)
        .await
        .expect("the client is told");
    let new = live_session(&moved);
    let mut connection = world.dial("orders", "db").await;
    let carried = transfer::exchange(&mut connection, BYTES, BYTES).await;
    carried.expect("all bytes arrive");

    forwarder.mend();
    let given_up = late
        .wait_for_log("the listener left this relay", WAIT_MAX)
        .await;
    given_up.expect("the late relay learns of it");
    world.wait_ended("orders", &old, EndReason::RelayLost).await;
    world.wait_ten_polls().await;
    let carried = transfer::exchange(&mut connection, BYTES, BYTES).await;
    carried.expect("the late relay ended nothing");
    let after = world.wait_serving("orders").await;
    assert_eq!(
        (relay(&after), live_session(&after)),
        ("relay-b".to_owned(), new)
    );
    assert_eq!(world.simulator.calls(Operation::StartSession), 2);

    world.delete("orders").await;
    world.wait_gone("orders").await;
    world.assert_nothing_is_left().await;
    for process in [late, other, controller] {
        process.stop().await.expect("it ends well");
    }
    assert_relay_b_wrote_last(&versions);
}

#[tokio::test]
async fn a_status_that_arrives_after_the_listener_was_moved_is_refused() {
    let mut world = World::new("too-late").await;
    let versions = world.record_listeners().await;
    let controller = world.controller(&[]).await;
    let direct = world.kubeconfig.clone();
    let (forwarder, kubeconfig) = world.forwarder().await;
    world.kubeconfig = kubeconfig;
    let mut late = world.relay("relay-a", MORTAL).await;
    world.create(&world.session("orders")).await;
    world.wait_available("orders").await;
    let old = live_session(&world.wait_serving("orders").await);
    world.kubeconfig = direct;

    // The relay has something to say, and says it into a connection that is stuck.
    forwarder.silence();
    let request = json!({ "SessionId": old });
    let ended = call_ssm(&world.simulator.endpoint(), "TerminateSession", &request).await;
    ended.expect("AWS ends it");
    let stuck = late.wait_for_log("state not recorded", WAIT_MAX).await;
    stuck.expect("the relay tries to write");
    let other = world.relay("relay-b", &[]).await;
    let moved = world
        .wait_listener("orders", "served by the other relay", |listener| {
            serves(listener).is_some_and(|status| status.relay == "relay-b")
        })
        .await;
    forwarder.mend();
    let given_up = late.wait_for_log("the listener left this relay", WAIT_MAX);
    given_up.await.expect("the late relay learns of it");
    world.wait_ten_polls().await;
    let after = world.wait_serving("orders").await;
    assert_eq!(live_session(&after), live_session(&moved));

    world.delete("orders").await;
    world.wait_gone("orders").await;
    world.assert_nothing_is_left().await;
    for process in [late, other, controller] {
        process.stop().await.expect("it ends well");
    }
    assert_relay_b_wrote_last(&versions);
}

/// Fails if relay-a wrote a status after relay-b had.
fn assert_relay_b_wrote_last(versions: &Versions) {
    let versions = versions.so_far().into_iter();
    let writers: Vec<_> = versions
        .filter_map(|version| Some(version.status?.relay))
        .collect();
    assert!(
        writers.is_sorted() && writers.ends_with(&["relay-b".to_owned()]),
        "statuses were overwritten: {writers:?}"
    );
}
