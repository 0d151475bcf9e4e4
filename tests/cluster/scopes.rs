//! Several watched namespaces: what happens to one of them stops no other.

use std::mem::swap;

use ssm_session_operator::crd::SsmSession;

use crate::http;
use crate::listeners::{live_session, serves};
use crate::looks::message;
use crate::process::Process;
use crate::transfer::dead;
use crate::world::{MORTAL, WAIT_MAX, World, carry, reason};

const UNREAD: &str = "can't be read";

fn is_unread(session: &SsmSession) -> bool {
    message(session, "Ready").contains(UNREAD)
}

/// A sample of the metric that says whether a namespace could be read.
fn synced(scope: &str, synced: u8) -> String {
    format!("ssm_operator_controller_scope_synced{{scope=\"{scope}\"}} {synced}\n")
}

/// Waits until a process, which is well, shows these words.
async fn shows(world: &World, address: &str, path: &str, words: &str) {
    world
        .until(&format!("{path} shows {words}"), async || {
            let answer = http::get(address, path).await?;
            Ok(answer.status == 200 && answer.body.contains(words))
        })
        .await;
}

/// In a namespace that can be read, what is deleted is revoked and what has lost its relay moves.
async fn is_served(world: &World, relay: Process) -> Process {
    let mut bills = world.connect("bills", "db").await;
    world.delete("bills").await;
    dead(&mut bills, WAIT_MAX)
        .await
        .expect("the client is told");
    world.wait_gone("bills").await;
    let other = world.relay("relay-b", MORTAL).await;
    world.wait_lease("relay-b").await;
    let before = live_session(&world.wait_serving("orders").await);
    relay.kill().await.expect("it can be killed");
    world
        .wait_listener("orders", "served by the other relay", |listener| {
            serves(listener).is_some_and(|status| status.relay == "relay-b")
        })
        .await;
    world.wait_terminated(&before).await;
    world.connect("orders", "db").await;
    other
}

/// In one that can't be read that is said, what is deleted is revoked all the same, and nothing new is made.
async fn is_let_go_of(world: &World) {
    let session = world.wait("ledger", "not known", is_unread).await;
    assert_eq!(reason(&session, "Reconciling"), "Resolving");
    let serving = world.wait_serving("ledger").await;
    world.delete("ledger").await;
    world.wait_gone("ledger").await;
    world.wait_terminated(&live_session(&serving)).await;
    world.create(&world.session("invoices")).await;
    world.wait("invoices", "not known", is_unread).await;
    let listener = world.listener_of("invoices").await;
    assert!(listener.expect("the API answers").is_none());
}

#[tokio::test]
async fn a_namespace_whose_rights_are_gone_stops_no_other_and_is_served_again_once_they_are_back() {
    let mut world = World::new("scopes").await;
    let mut other = world.ground.namespace(&world.client, "scopes-other").await;
    let lost = other.clone();
    let watched =
        [&world.namespace, &other].map(|namespace| format!("--watch-namespace={namespace}"));
    let watched = watched.each_ref().map(String::as_str);
    let first = world.controller(&watched).await;
    let relay = world.relay("relay-a", MORTAL).await;
    world.wait_lease("relay-a").await;
    for name in ["orders", "bills"] {
        world.create(&world.session(name)).await;
        world.wait_ready(name).await;
    }
    // From here to the next swap the user's namespace is the other one.
    swap(&mut world.namespace, &mut other);
    world.create(&world.session("ledger")).await;
    world.wait_ready("ledger").await;
    let mut ledger = world.connect("ledger", "db").await;
    swap(&mut world.namespace, &mut other);

    first.stop().await.expect("it ends well");
    world.take_rights_in(&lost).await;
    let mut second = world.controller(&watched).await;
    let said = format!("what is in namespace {lost} {UNREAD}");
    let line = second.wait_for_log(&said, WAIT_MAX).await;
    let line = line.expect("it says what is the matter");
    assert!(
        line.contains("WARN") && line.contains("forbidden"),
        "{line}"
    );
    let address = second.admin_address(WAIT_MAX).await.expect("an address");
    let amiss = format!("[!] watched namespaces: {said}");
    shows(&world, &address, "/readyz", &amiss).await;
    shows(&world, &address, "/metrics", &synced(&lost, 0)).await;
    shows(&world, &address, "/metrics", &synced(&world.namespace, 1)).await;

    carry(&mut ledger).await;
    let relay = is_served(&world, relay).await;
    swap(&mut world.namespace, &mut other);
    is_let_go_of(&world).await;

    world.give_rights_in(&lost).await;
    world.wait_ready("invoices").await;
    world.connect("invoices", "db").await;
    shows(&world, &address, "/metrics", &synced(&lost, 1)).await;
    let ready = http::get(&address, "/readyz").await.expect("an answer");
    assert!(!ready.body.contains("[!]"), "{}", ready.body);
    world.delete("invoices").await;
    world.wait_gone("invoices").await;
    swap(&mut world.namespace, &mut other);
    world.remove("orders").await;
    relay.stop().await.expect("it ends well");
    second.stop().await.expect("it ends well");
}
