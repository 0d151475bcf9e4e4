//! Objects that are larger than any that is read: they end and begin nothing, and cost nobody anything.

use k8s_openapi::api::core::v1::Service;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams, PostParams};
use kube::{Api, Resource, ResourceExt as _};
use serde_json::{Value, json};
use ssm_session_operator::crd::{LISTENER_FINALIZER, MANAGED_BY, SsmSession, SsmSessionClass};

use crate::looks::{is_ready, is_stalled, message};
use crate::transfer::dead;
use crate::world::{WAIT_MAX, World, carry, condition};

/// Finalizers with which an object has nearly the size that the API server takes.
const MANY: usize = 200_000;

/// Few, and too many to be read.
pub const SOME: usize = 2_000;

/// Metadata with so many finalizers, after these.
pub fn finalizers(count: usize, before: &[String]) -> Value {
    let mut all = before.to_vec();
    all.resize(before.len() + count, "a/b".to_owned());
    json!({ "metadata": { "finalizers": all } })
}

impl World {
    /// Writes metadata into an object, whoever can read it then.
    pub async fn rewrite<K: Resource<DynamicType = ()>>(
        &self,
        api: Api<K>,
        name: &str,
        change: &Value,
    ) {
        let kind = ApiResource::erase::<K>(&());
        let any: Api<DynamicObject> = match api.namespace() {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &kind),
            None => Api::all_with(self.client.clone(), &kind),
        };
        let params = PatchParams::default();
        let written = any.patch(name, &params, &Patch::Merge(change)).await;
        written.expect("the API server takes it");
    }
}

#[tokio::test]
async fn objects_of_any_size_keep_no_other_namespace_from_being_served() {
    let mut world = World::new("huge").await;
    let mut other = world.ground.namespace(&world.client, "huge-other").await;
    let watched = format!("--watch-namespace={other}");
    std::mem::swap(&mut world.namespace, &mut other);
    let owner = |number: usize| json!({ "apiVersion": "v1", "kind": "ConfigMap", "name": "c", "uid": number.to_string() });
    let owners: Vec<Value> = (0..15_000).map(owner).collect();
    for number in 0..6 {
        let (huge, owned) = (format!("huge-{number}"), format!("owned-{number}"));
        world.create(&world.session(&huge)).await;
        world
            .rewrite(world.sessions(), &huge, &finalizers(MANY, &[]))
            .await;
        let mut session = world.session(&owned);
        session["metadata"]["ownerReferences"] = owners.clone().into();
        world.create(&session).await;
    }
    for number in 0..60 {
        let label = json!({ "app.kubernetes.io/managed-by": MANAGED_BY });
        let service = json!({
            "metadata": { "name": format!("alien-{number}"), "labels": label, "annotations": { "a": "x".repeat(250_000) } },
            "spec": { "ports": [{ "port": 80 }] },
        });
        let service: Service = serde_json::from_value(service).expect("a Service");
        let created = world
            .services()
            .create(&PostParams::default(), &service)
            .await;
        created.expect("the Service is admitted");
    }
    std::mem::swap(&mut world.namespace, &mut other);

    let controller = world.controller(&[&watched]).await;
    let relay = world.relay("relay-a", &[]).await;
    world.create(&world.session("orders")).await;
    world.wait_ready("orders").await;
    let mut connection = world.connect("orders", "db").await;
    world.delete("orders").await;
    dead(&mut connection, WAIT_MAX)
        .await
        .expect("the client is told");
    world.wait_gone("orders").await;

    std::mem::swap(&mut world.namespace, &mut other);
    // Nobody reads its owners.
    world.wait_available("owned-0").await;
    assert!(
        world
            .listener_of("huge-0")
            .await
            .expect("the API answers")
            .is_none(),
        "nothing is begun"
    );
    let huge = world.sessions().get("huge-0").await.expect("it is there");
    assert_eq!(
        huge.finalizers().len(),
        MANY,
        "theirs stay, and ours did not come"
    );
    let status = std::fs::read_to_string(format!("/proc/{}/status", controller.pid()));
    let status = status.expect("it runs");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak: usize = peak
        .and_then(|of| of.split_whitespace().next()?.parse().ok())
        .expect("in kB");
    assert!(peak < 256 << 10, "{peak} kB: more than a controller has");

    for number in 0..6 {
        let huge = format!("huge-{number}");
        world
            .rewrite(world.sessions(), &huge, &finalizers(0, &[]))
            .await;
        world.wait_available(&huge).await;
    }
    for number in 0..6 {
        for name in [format!("huge-{number}"), format!("owned-{number}")] {
            world.delete(&name).await;
            world.wait_gone(&name).await;
        }
    }
    relay.stop().await.expect("it ends well");
    controller.stop().await.expect("it ends well");
}

#[tokio::test]
async fn a_session_that_grew_too_large_is_served_on_and_ends_when_it_is_deleted() {
    let (world, operator, session) = World::serving("grown").await;
    let ours = session.finalizers().to_vec();
    world
        .rewrite(world.sessions(), "orders", &finalizers(SOME, &ours))
        .await;
    let mut connection = world.connect("orders", "db").await;
    world
        .rewrite(world.services(), "orders", &finalizers(SOME, &[]))
        .await;
    carry(&mut connection).await;

    world.delete("orders").await;
    dead(&mut connection, WAIT_MAX)
        .await
        .expect("the client is told");
    world
        .until("nothing is left of it", async || {
            Ok(world.listener_of("orders").await?.is_none())
        })
        .await;
    let left = world
        .sessions()
        .get("orders")
        .await
        .expect("it has finalizers");
    assert_eq!(
        left.finalizers().len(),
        SOME + ours.len(),
        "those of others are nobody's here"
    );
    world
        .rewrite(world.sessions(), "orders", &finalizers(0, &ours))
        .await;
    world.wait_gone("orders").await;
    world
        .rewrite(world.services(), "orders", &finalizers(0, &[]))
        .await;
    operator.stop().await.expect("it ends well");
}

#[tokio::test]
async fn an_own_service_and_a_class_that_can_not_be_read_end_nothing_and_begin_nothing() {
    let (world, operator, _) = World::serving("unread").await;
    let mut connection = world.connect("orders", "db").await;
    world
        .rewrite(world.services(), "orders", &finalizers(SOME, &[]))
        .await;
    let unread =
        |session: &SsmSession| message(session, "Reconciling").contains("orders can't be read");
    world
        .wait("orders", "its Service is not known", unread)
        .await;
    carry(&mut connection).await;
    world
        .rewrite(world.services(), "orders", &finalizers(0, &[]))
        .await;
    world.wait("orders", "Ready", is_ready).await;

    let classes: Api<SsmSessionClass> = Api::all(world.client.clone());
    world
        .rewrite(classes.clone(), &world.class, &finalizers(SOME, &[]))
        .await;
    // Said only after the time in which one that is gone ends its sessions.
    let stalled = |session: &SsmSession| is_stalled(session, "ClassNotFound");
    let session = world.wait("orders", "Stalled", stalled).await;
    assert!(message(&session, "Stalled").contains("can't be read"));
    assert_eq!(condition(&session, "Available"), "True");
    world.create(&world.session("bills")).await;
    world.wait("bills", "Stalled", stalled).await;
    assert!(
        world
            .listener_of("bills")
            .await
            .expect("the API answers")
            .is_none()
    );
    carry(&mut connection).await;
    let listener = world
        .listener_of("orders")
        .await
        .expect("the API answers")
        .expect("it is served");
    assert_eq!(listener.finalizers(), [LISTENER_FINALIZER]);
    assert!(listener.metadata.deletion_timestamp.is_none());

    world
        .rewrite(classes, &world.class, &finalizers(0, &[]))
        .await;
    for name in ["orders", "bills"] {
        world.wait(name, "Ready", is_ready).await;
        world.delete(name).await;
        world.wait_gone(name).await;
    }
    world.assert_nothing_is_left().await;
    operator.stop().await.expect("it ends well");
}
