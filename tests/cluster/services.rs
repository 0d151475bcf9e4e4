//! Services and slices: whose they are, and what becomes of them.

use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt as _;
use kube::api::{DeleteParams, ListParams, PostParams};
use serde_json::{Value, json};
use ssm_session_operator::crd::SsmSession;
use ssm_session_operator::simulator::Operation;

use crate::looks::{is_stalled, live, message};
use crate::world::{World, carry, condition, reason};

/// A Service as a user made it, before any of ours.
async fn create_service(world: &World, name: &str) {
    let service: Service = serde_json::from_value(json!({
        "metadata": { "name": name, "labels": { "app": "theirs" } },
        "spec": { "selector": { "app": "theirs" }, "ports": [{ "port": 80 }] },
    }))
    .expect("a Service");
    let created = world
        .services()
        .create(&PostParams::default(), &service)
        .await;
    created.expect("the Service is admitted");
}

/// Every byte of a Service, its version and its managers included.
async fn bytes_of(world: &World, service: &str) -> Value {
    let service = world.services().get(service).await.expect("the Service");
    serde_json::to_value(service).expect("JSON")
}

fn has_conflict(session: &SsmSession) -> bool {
    is_stalled(session, "ServiceConflict")
}

#[tokio::test]
async fn a_service_that_is_not_ours_stays_untouched_and_its_name_is_waited_for() {
    let world = World::new("conflict").await;
    create_service(&world, "orders").await;
    let before = bytes_of(&world, "orders").await;
    let operator = world.all_in_one(&[]).await;
    world.create(&world.session("orders")).await;
    let session = world.wait("orders", "a conflict", has_conflict).await;
    assert_eq!(
        (condition(&session, "Ready"), reason(&session, "Ready")),
        ("False", "Failed")
    );
    assert_eq!(condition(&session, "Available"), "False");
    assert!(message(&session, "Stalled").contains("Service orders"));

    // As many looks at the Service fall into these polls as are needed to show that nothing is repeated.
    world.wait_polls(10).await;
    assert_eq!(bytes_of(&world, "orders").await, before);
    assert_eq!(world.simulator.calls(Operation::StartSession), 0);
    let listeners = world.listeners().list(&ListParams::default()).await;
    assert_eq!(listeners.expect("the API answers").items.len(), 0);
    assert_eq!(world.slice_ports().await, Vec::<String>::new());
    let events = world.events_of("orders", "ServiceConflict").await;
    assert_eq!(
        (events.len(), events[0].series.is_none()),
        (1, true),
        "{events:?}"
    );

    let deleted = world
        .services()
        .delete("orders", &DeleteParams::default())
        .await;
    deleted.expect("the Service can be deleted");
    let session = world.wait_ready("orders").await;
    assert_eq!(condition(&session, "Stalled"), "");
    world.connect("orders", "db").await;
    operator.stop().await.expect("it ends well");
}

#[tokio::test]
async fn of_two_sessions_that_want_one_service_the_first_keeps_it_and_the_second_gets_it_later() {
    let (world, operator, first) = World::serving("rivals").await;
    let service = bytes_of(&world, "orders").await;
    let rival = world.session_with("rival", json!({ "service": { "name": "orders" } }));
    world.create(&rival).await;
    let second = world.wait("rival", "a conflict", has_conflict).await;
    assert!(message(&second, "Stalled").contains("SsmSession orders"));
    world.wait_polls(3).await;
    assert_eq!(bytes_of(&world, "orders").await, service);
    assert_eq!(
        world.live_sessions(),
        [live(&first, "db").expect("a session").session_id]
    );

    world.delete("orders").await;
    world.wait_gone("orders").await;
    let second = world.wait_ready("rival").await;
    let service = world.services().get("orders").await.expect("the Service");
    assert_eq!(service.owner_references().len(), 1);
    assert_eq!(
        Some(&service.owner_references()[0].uid),
        second.uid().as_ref()
    );
    world.connect("orders", "db").await;
    operator.stop().await.expect("it ends well");
}

#[tokio::test]
async fn a_deleted_slice_and_a_deleted_service_come_back_and_connections_go_on() {
    let (world, operator, before) = World::serving("back").await;
    let mut connection = world.connect("orders", "db").await;

    let all = ListParams::default();
    for slice in world.slices().list(&all).await.expect("slices") {
        let name = slice.name_any();
        let deleted = world.slices().delete(&name, &DeleteParams::default()).await;
        deleted.expect("the slice can be deleted");
        world
            .until("the slice is another one", async || {
                let now = world.slices().get_opt(&name).await?;
                Ok(now.is_some_and(|now| now.uid() != slice.uid()))
            })
            .await;
    }
    let service = world.services().get("orders").await.expect("the Service");
    let deleted = world
        .services()
        .delete("orders", &DeleteParams::default())
        .await;
    deleted.expect("the Service can be deleted");
    world
        .until("the Service is another one", async || {
            let now = world.services().get_opt("orders").await?;
            Ok(now.is_some_and(|now| now.uid() != service.uid()))
        })
        .await;
    world
        .until("its slices are there", async || {
            Ok(world.slice_ports().await == ["db", "db"])
        })
        .await;
    let after = world.wait_ready("orders").await;
    // The old connection goes on.
    carry(&mut connection).await;
    world.connect("orders", "db").await;
    assert_eq!(
        live(&after, "db").map(|session| session.session_id),
        live(&before, "db").map(|session| session.session_id),
    );
    operator.stop().await.expect("it ends well");
}
