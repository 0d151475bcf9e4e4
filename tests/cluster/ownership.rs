//! Who writes what: the controller a listener's metadata and spec, the relay its status, and the relay nothing else
//! but its Lease.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use kube::ResourceExt;
use serde_json::{Value, json};
use ssm_session_operator::crd::{LISTENER_FINALIZER, SsmListener};

use crate::listeners::{live_session, port, relay, serves};
use crate::transfer;
use crate::world::World;

const CONTROLLER: &str = "ssm-session-operator-controller";
const RELAY: &str = "ssm-session-operator-relay";

/// Everything that a relay needs from the API server, as its Role will say it.
pub const RELAY_RIGHTS: &[(&str, &str, &[&str])] = &[
    ("", "namespaces", &["get"]),
    (
        "ssm-operator.dev",
        "ssmlisteners",
        &["get", "list", "watch"],
    ),
    ("ssm-operator.dev", "ssmlisteners/status", &["update"]),
    (
        "coordination.k8s.io",
        "leases",
        &["get", "create", "update"],
    ),
];

/// The fields at the top that an entry owns.
fn owned(entry: &ManagedFieldsEntry) -> BTreeSet<String> {
    let fields = entry
        .fields_v1
        .as_ref()
        .and_then(|fields| fields.0.as_object());
    fields
        .into_iter()
        .flat_map(|fields| fields.keys().cloned())
        .collect()
}

fn set(fields: &[&str]) -> BTreeSet<String> {
    fields.iter().map(|field| (*field).to_owned()).collect()
}

#[tokio::test]
async fn of_a_listener_the_controller_owns_metadata_and_spec_and_the_relay_its_status() {
    let mut world = World::new("ownership").await;
    let versions = world.record_listeners().await;
    let controller = world.controller(&[]).await;
    // Relays may do what a relay needs, and what they did beyond it would be refused.
    world.grant("a-relay", RELAY_RIGHTS).await;
    world.kubeconfig = world.kubeconfig_of("a-relay");
    let first = world.relay("relay-a", &[]).await;
    world.create(&world.session("orders")).await;
    world.wait_available("orders").await;
    let mut connection = world.dial("orders", "db").await;
    transfer::exchange(&mut connection, 1000, 1000)
        .await
        .expect("all bytes arrive");

    let before = live_session(&world.wait_serving("orders").await);
    world
        .edit("orders", &json!({ "reason": "another test" }))
        .await;
    world.wait_terminated(&before).await;
    world.wait_serving("orders").await;
    let second = world.relay("relay-b", &[]).await;
    first.stop().await.expect("it ends well");
    let moved = world
        .wait_listener("orders", "moved", |listener| {
            serves(listener).is_some_and(|status| status.relay == "relay-b")
        })
        .await;
    assert_eq!(relay(&moved), "relay-b");
    world.wait_endpoints("orders", port(&moved)).await;
    only_its_lease_and_its_status(&world).await;
    world.delete("orders").await;
    world.wait_gone("orders").await;
    world.assert_nothing_is_left().await;
    second.stop().await.expect("it ends well");
    controller.stop().await.expect("it ends well");

    let versions = versions.so_far();
    let last = versions.last().expect("the watch has shown something");
    assert!(
        last.metadata.deletion_timestamp.is_some(),
        "the watch has missed the end"
    );
    let mut writers = BTreeSet::new();
    for entry in versions.iter().flat_map(ResourceExt::managed_fields) {
        let manager = entry.manager.clone().unwrap_or_default();
        let (subresource, allowed) = match manager.as_str() {
            CONTROLLER => (None, set(&["f:metadata", "f:spec"])),
            RELAY => (Some("status"), set(&["f:status"])),
            other => panic!("{other} wrote to a listener: {entry:?}"),
        };
        assert_eq!(entry.subresource.as_deref(), subresource, "{entry:?}");
        assert!(owned(entry).is_subset(&allowed), "{entry:?}");
        writers.insert(manager);
    }
    assert_eq!(writers, set(&[CONTROLLER, RELAY]));
    let holds = |version: &SsmListener| {
        version
            .finalizers()
            .contains(&LISTENER_FINALIZER.to_owned())
    };
    assert!(holds(&versions[0]), "it was made without its finalizer");
    let logs = world.logs();
    assert!(
        !logs.contains("orbidden"),
        "a relay wanted more than it may"
    );
}

/// Looks at every object of both namespaces for what the relay's field manager owns.
async fn only_its_lease_and_its_status(world: &World) {
    let mut by_relay = BTreeSet::new();
    for object in world.objects().await {
        let managed = object["metadata"]["managedFields"].as_array().cloned();
        for entry in managed.unwrap_or_default() {
            if entry["manager"] == RELAY {
                let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                by_relay.insert((word(&object["kind"]), word(&entry["subresource"])));
            }
        }
    }
    let expected = [("Lease", ""), ("SsmListener", "status")];
    let expected = expected.map(|(kind, subresource)| (kind.to_owned(), subresource.to_owned()));
    assert_eq!(by_relay, BTreeSet::from(expected));
}
