//! What is to be done before the operator is uninstalled: everything is let go while nobody begins anything, grants stay,
//! and whoever runs afterwards serves them again.

use k8s_openapi::api::coordination::v1::Lease;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use ssm_session_operator::crd::listener::EndReason;
use ssm_session_operator::crd::{DRAIN_LEASE, SsmSession};
use ssm_session_operator::simulator::{Operation, Status};

use crate::transfer::dead;
use crate::world::{WAIT_MAX, World, carry, reason};

/// What a controller says once it knows that it is to drain.
const ASKED: &str = "a drain is asked for, as before the operator is uninstalled";

/// What it says when it finds a Lease that nobody may renew.
const UNCONFIRMED: &str = "a drain may be asked for";

impl World {
    /// Waits until a session is let go: it is there, nobody's, and says so.
    async fn wait_let_go(&self, name: &str) -> SsmSession {
        self.wait(name, "let go", |session| {
            session.finalizers().is_empty() && reason(session, "Ready") == "Draining"
        })
        .await
    }

    async fn cluster_ip(&self, service: &str) -> String {
        let service = self.services().get(service).await.expect("it is there");
        let spec = service.spec.expect("it has one");
        spec.cluster_ip.expect("the API server gives one")
    }

    /// Nothing leads anywhere, and AWS has ended every session.
    async fn assert_nothing_is_served(&self) {
        self.until("no listener and no slice is left", async || {
            let all = ListParams::default();
            let listeners = self.listeners().list(&all).await?.items;
            Ok(listeners.is_empty() && self.slices().list(&all).await?.items.is_empty())
        })
        .await;
        self.wait_aws("every session is Terminated", |aws| {
            let mut sessions = aws.sessions.iter();
            sessions.all(|session| session.status == Status::Terminated)
        })
        .await;
    }

    async fn wait_drain_lease_gone(&self) {
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), &self.operator_namespace);
        self.until("the Lease of the drain is deleted", async || {
            Ok(leases.get_opt(DRAIN_LEASE).await?.is_none())
        })
        .await;
    }
}

#[tokio::test]
async fn while_a_drain_is_asked_for_everything_is_let_go_and_afterwards_served_again() {
    let world = World::new("drain").await;
    // What AWS says of the ends is waited for, however long a busy machine takes.
    let patient = ["--finalizer-timeout=1h"];
    let mut first = world.controller(&patient).await;
    let relay = world.relay("relay-a", &[]).await;
    world.create(&world.session("orders")).await;
    world.wait_available("orders").await;
    let mut second = world.controller(&patient).await;
    let address = world.cluster_ip("orders").await;
    let mut connection = world.connect("orders", "db").await;

    // This one asks until it is ended: it would have to see nothing left for an hour.
    let mut asking = world.drain(&["--timeout=2h", "--quiet=1h"]).await;
    first.wait_for_log(ASKED, WAIT_MAX).await.expect("it leads");
    world.create(&world.session("bills")).await;
    dead(&mut connection, WAIT_MAX).await.expect("it is told");
    let orders = world
        .wait_let_go("orders")
        .await
        .status
        .expect("it has one");
    assert!(orders.sessions.is_empty(), "{:?}", orders.sessions);
    let [end] = &orders.history[..] else {
        panic!("{:?}", orders.history)
    };
    assert!(end.end_date.is_some(), "AWS has said when: {end:?}");
    world.wait_let_go("bills").await;
    world.assert_nothing_is_served().await;
    let services = world.services().list(&ListParams::default()).await;
    let services = services.expect("the API answers").items;
    let services: Vec<_> = services.iter().map(ResourceExt::name_any).collect();
    assert_eq!(
        services,
        ["orders"],
        "that of the grant stays, none is made"
    );
    assert_eq!(world.cluster_ip("orders").await, address);

    // Whoever leads next is to drain too.
    first.kill().await.expect("it can be killed");
    second
        .wait_for_log(ASKED, WAIT_MAX)
        .await
        .expect("it leads");
    world.create(&world.session("late")).await;
    world.wait_let_go("late").await;
    world.drained().await;
    asking.signal("TERM").await.expect("it is there");
    let stopped = asking.wait_for_log("asked to end before everything was let go", WAIT_MAX);
    stopped.await.expect("it says so");
    let (well, _) = asking.finish(WAIT_MAX).await.expect("it ends");
    assert!(!well, "whoever asked must not believe that all is over");
    assert_eq!(world.simulator.calls(Operation::StartSession), 1);

    for name in ["orders", "bills", "late"] {
        world.wait_available(name).await;
    }
    world.wait_drain_lease_gone().await;
    assert_eq!(world.cluster_ip("orders").await, address);
    world.connect("orders", "db").await;
    for name in ["orders", "bills", "late"] {
        world.delete(name).await;
        world.wait_gone(name).await;
    }
    world.assert_nothing_is_left().await;
    relay.stop().await.expect("it ends well");
    second.stop().await.expect("it ends well");
}

#[tokio::test]
async fn what_an_uninstallation_left_is_deleted_without_an_operator_and_served_by_a_new_one() {
    let (world, operator, _) = World::serving("drain-new").await;
    world.create(&world.session("bills")).await;
    world.wait_available("bills").await;
    let drain = world.drain(&["--drain-duration=20s"]).await;
    let (well, logged) = drain.finish(WAIT_MAX).await.expect("it ends");
    assert!(well, "{logged}");
    operator.stop().await.expect("it ends well");
    world.assert_nothing_is_served().await;

    // No finalizer holds it, and its Service is its own.
    world.delete("bills").await;
    world.wait_gone("bills").await;
    world
        .until("the Service goes with its session", async || {
            Ok(world.services().get_opt("bills").await?.is_none())
        })
        .await;

    let mut operator = world.all_in_one(&[]).await;
    let found = operator.wait_for_log(UNCONFIRMED, WAIT_MAX).await;
    found.expect("the Lease is still there");
    let orders = world.wait_ready("orders").await;
    assert!(!operator.logged().contains(ASKED), "nobody renews it");
    let history = orders.status.expect("it has one").history;
    assert_eq!(history.len(), 1, "what is known of the past stays");
    world.wait_drain_lease_gone().await;
    world.connect("orders", "db").await;
    world.remove("orders").await;
    operator.stop().await.expect("it ends well");
}

#[tokio::test]
async fn a_drain_that_aws_does_not_let_end_says_what_is_left_and_everything_heals() {
    let (world, controller, relay, listener) = World::serving_apart("drain-late", &[]).await;
    world.fail(Operation::TerminateSession, "InternalServerError");
    let drain = world.drain(&["--timeout=45s"]).await;
    let draining = |session: &SsmSession| reason(session, "Ready") == "Draining";
    world.wait("orders", "what is asked for", draining).await;
    let (well, logged) = drain.finish(WAIT_MAX).await.expect("it ends");
    assert!(!well, "{logged}");
    let name = listener.name_any();
    let left = format!(
        "left are 1 SsmListeners ({name}) and 1 SsmSessions ({}/orders)",
        world.namespace
    );
    let last = logged.lines().last().expect("it has logged");
    for words in [&left, "docs/upgrade.md", "--no-hooks"] {
        assert!(last.contains(words), "{words}: {last}");
    }
    let session = world.sessions().get("orders").await.expect("it is there");
    assert_eq!(session.finalizers().len(), 1, "somebody must end it");

    world.mend();
    let served = |session: &SsmSession| {
        let status = session.status.as_ref();
        let mut history = status.into_iter().flat_map(|status| &status.history);
        reason(session, "Ready") == "Available"
            && history.any(|end| end.end_reason == Some(EndReason::Deleted))
    };
    world.wait("orders", "served anew", served).await;
    let mut connection = world.dial("orders", "db").await;
    carry(&mut connection).await;
    assert_eq!(world.live_sessions().len(), 1);
    world.remove("orders").await;
    relay.stop().await.expect("it ends well");
    controller.stop().await.expect("it ends well");
}

#[tokio::test]
async fn a_drain_says_that_no_controller_leads_and_goes_on_when_one_does() {
    let (world, controller, relay, _) = World::serving_apart("drain-alone", &[]).await;
    controller.kill().await.expect("it can be killed");
    let mut drain = world.drain(&["--timeout=1h"]).await;
    let said = drain.wait_for_log("No controller leads", WAIT_MAX).await;
    said.expect("whoever waits should know");
    let controller = world.controller(&[]).await;
    let (well, logged) = drain.finish(WAIT_MAX).await.expect("it ends");
    assert!(well, "{logged}");
    world.wait_let_go("orders").await;
    world.assert_nothing_is_served().await;
    world.remove("orders").await;
    relay.stop().await.expect("it ends well");
    controller.stop().await.expect("it ends well");
}

#[tokio::test]
async fn a_drain_of_an_installation_that_lost_the_namespace_to_another_ends_and_disturbs_nobody() {
    let (world, operator, before) = World::serving("drain-other").await;
    let mut connection = world.connect("orders", "db").await;
    let other = world.drain(&["--controller-name=example.com/other"]).await;
    let (well, logged) = other.finish(WAIT_MAX).await.expect("it ends");
    assert!(well, "{logged}");
    world.wait_drain_lease_gone().await;
    world.wait_ten_polls().await;
    carry(&mut connection).await;
    let after = world.sessions().get("orders").await.expect("it is there");
    assert_eq!(after.finalizers(), before.finalizers());
    assert!(!operator.logged().contains(ASKED));
    world.remove("orders").await;
    operator.stop().await.expect("it ends well");
}
