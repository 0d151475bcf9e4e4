//! Whoever may edit one object stops nobody by what is written into it, and keeps no grant by making it unreadable.

use std::fmt::Debug;

use k8s_openapi::api::core::v1::Service;
use kube::api::{Patch, PatchParams, PostParams};
use kube::client::ClientBuilder;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Config, ResourceExt as _};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use ssm_session_operator::crd::MANAGED_BY;
use ssm_session_operator::reading::LeanLayer;

use crate::huge::{SOME, finalizers};
use crate::transfer::dead;
use crate::world::{WAIT_MAX, World, carry};

/// A time that the API server takes, and after the last one that clients of this kind can read.
const LATE: &str = "9999-12-31T23:59:59Z";

/// So deep that clients of this kind give up.
const DEPTH: usize = 200;

/// Nearly as much as an object may have.
const BYTES: usize = 900_000;

/// Lists of owned fields, the small one first.
fn field_sets() -> [Value; 3] {
    let small = json!({ "f:spec": { "f:reason": {} } });
    let deep = (0..DEPTH).fold(json!({}), |inner, _| json!({ "f:spec": inner }));
    let mut long = serde_json::Map::new();
    for number in 0..BYTES / 20 {
        long.insert(format!("f:field-{number:09}"), json!({}));
    }
    [small, deep, json!({ "f:spec": long })]
}

/// What somebody may write into an object with nothing but the right to edit it.
fn poison(fields: &Value, api_version: &str) -> Value {
    json!({ "metadata": { "managedFields": [{
        "manager": "x",
        "operation": "Update",
        "apiVersion": api_version,
        "time": LATE,
        "fieldsType": "FieldsV1",
        "fieldsV1": fields,
    }] } })
}

/// A world whose own client can read what is written into its objects.
async fn world(name: &str) -> World {
    let mut world = World::new(name).await;
    let kubeconfig = Kubeconfig::read_from(world.ground.kubeconfig()).expect("it can be read");
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
    let client = ClientBuilder::try_from(config.expect("it names a server"));
    world.client = client
        .expect("it is complete")
        .with_layer(&LeanLayer)
        .build();
    world
}

async fn patch<K: Clone + DeserializeOwned + Debug>(api: &Api<K>, name: &str, change: Value) {
    let params = PatchParams::default();
    let patched = api.patch(name, &params, &Patch::Merge(change)).await;
    patched.expect("the API server takes it");
}

impl World {
    async fn poison_session(&self, name: &str, fields: &Value) {
        let change = poison(fields, "ssm-operator.dev/v1alpha1");
        patch(&self.sessions(), name, change).await;
    }

    async fn poison_service(&self, name: &str, fields: &Value) {
        patch(&self.services(), name, poison(fields, "v1")).await;
    }
}

#[tokio::test]
async fn what_is_poisoned_before_the_operator_starts_is_served_like_all_others() {
    let world = world("poisoned").await;
    let mut names = Vec::new();
    for (number, fields) in field_sets().iter().enumerate() {
        let name = format!("bad-{number}");
        world.create(&world.session(&name)).await;
        world.poison_session(&name, fields).await;
        let mut service = Service::default();
        service.metadata.name = Some(format!("alien-{number}"));
        let label = (
            "app.kubernetes.io/managed-by".to_owned(),
            MANAGED_BY.to_owned(),
        );
        service.metadata.labels = Some([label].into());
        service.spec =
            Some(serde_json::from_value(json!({ "ports": [{ "port": 80 }] })).expect("a spec"));
        let service = world
            .services()
            .create(&PostParams::default(), &service)
            .await;
        service.expect("the Service is admitted");
        world
            .poison_service(&format!("alien-{number}"), fields)
            .await;
        names.push(name);
    }
    world.create(&world.session("orders")).await;
    let plain = World::new("witness").await;
    let services: Api<Service> = Api::namespaced(plain.client.clone(), &world.namespace);
    services
        .get("alien-0")
        .await
        .expect_err("it can't be decoded as it is");

    let operator = world.all_in_one(&[]).await;
    names.push("orders".to_owned());
    for name in &names {
        world.wait_available(name).await;
    }
    world.connect("orders", "db").await;
    for name in &names {
        world.delete(name).await;
    }
    for name in &names {
        world.wait_gone(name).await;
    }
    operator.stop().await.expect("it ends well");
}

#[tokio::test]
async fn what_is_poisoned_while_it_is_served_is_served_on_and_ends_when_it_is_deleted() {
    let mut world = world("served-poison").await;
    let operator = world.all_in_one(&["--finalizer-timeout=1h"]).await;
    world.create(&world.session("orders")).await;
    world.wait_ready("orders").await;
    let mut connection = world.connect("orders", "db").await;
    for fields in &field_sets() {
        world.poison_session("orders", fields).await;
        world.poison_service("orders", fields).await;
    }
    carry(&mut connection).await;
    // An edit still arrives, at the Service too.
    world
        .edit(
            "orders",
            &json!({ "service": { "labels": { "team": "shop" } } }),
        )
        .await;
    world
        .until("the Service has the label", async || {
            let service = world.services().get("orders").await?;
            let labels = service.metadata.labels.unwrap_or_default();
            Ok(labels.get("team").is_some_and(|team| team == "shop"))
        })
        .await;
    world.wait_ready("orders").await;

    world.poison_session("orders", &field_sets()[0]).await;
    world.delete("orders").await;
    dead(&mut connection, WAIT_MAX)
        .await
        .expect("the client is told");
    world.wait_gone("orders").await;
    world.assert_nothing_is_left().await;
    operator.stop().await.expect("it ends well");
    world.client = world.ground.client().await;
}

#[tokio::test]
async fn a_drain_ends_with_a_poisoned_session() {
    let world = world("drained-poison").await;
    let controller = world.controller(&["--finalizer-timeout=1h"]).await;
    let relay = world.relay("relay-a", &[]).await;
    world.create(&world.session("orders")).await;
    world.wait_available("orders").await;
    world.poison_session("orders", &field_sets()[0]).await;
    world.create(&world.session("huge")).await;
    world
        .rewrite(world.sessions(), "huge", &finalizers(SOME, &[]))
        .await;
    world.drained().await;
    let session = world.sessions().get("orders").await.expect("it stays");
    assert_eq!(
        session.metadata.finalizers.unwrap_or_default(),
        Vec::<String>::new()
    );
    relay.stop().await.expect("it ends well");
    controller.stop().await.expect("it ends well");
}

#[tokio::test]
async fn a_status_that_can_not_be_read_is_written_anew_and_stops_nobody() {
    let world = World::new("strange-status").await;
    for name in ["orders", "strange"] {
        let mut session = world.session(name);
        session["metadata"]["labels"] = json!({ "team": "shop" });
        session["metadata"]["annotations"] = json!({ "note": "x" });
        world.create(&session).await;
    }
    let strange = json!({ "status": { "conditions": [{
        "type": "Ready", "status": "True", "reason": "Strange", "message": "", "lastTransitionTime": LATE,
    }] } });
    let sessions = world.sessions();
    let params = PatchParams::default();
    let strange = Patch::Merge(strange);
    let patched = sessions.patch_status("strange", &params, &strange).await;
    patched.expect_err("the API server takes it, and what comes back can't be decoded");
    sessions
        .get("strange")
        .await
        .expect_err("it can't be decoded");

    let operator = world.all_in_one(&[]).await;
    world.wait_available("orders").await;
    world
        .until("the status can be read", async || {
            Ok(sessions.get("strange").await.is_ok())
        })
        .await;
    let served = world.wait_available("strange").await;
    let (labels, annotations) = (served.labels(), served.annotations());
    assert_eq!(labels.get("team").map(String::as_str), Some("shop"));
    assert_eq!(annotations.get("note").map(String::as_str), Some("x"));
    assert!(
        world.logs().contains("an object can't be read"),
        "it is said"
    );
    world.delete("orders").await;
    world.remove("strange").await;
    operator.stop().await.expect("it ends well");
}

#[tokio::test]
async fn a_relay_writes_no_more_into_a_status_than_relays_do() {
    let (world, controller, relay, listener) = World::serving_apart("bounded", &[]).await;
    relay.kill().await.expect("it can be killed");
    let name = listener.metadata.name.expect("it has one");
    let listeners = world.listeners();
    let write = async |message: String| {
        let error = json!({ "class": "NoPort", "message": message });
        let change = Patch::Merge(json!({ "status": { "lastError": error } }));
        listeners
            .patch_status(&name, &PatchParams::default(), &change)
            .await
    };
    write("x".repeat(1024)).await.expect("it is a long message");
    let refused = write("x".repeat(1025)).await.expect_err("it is too long");
    assert!(
        refused.to_string().contains("status.lastError.message"),
        "{refused}"
    );
    world.remove("orders").await;
    controller.stop().await.expect("it ends well");
}
