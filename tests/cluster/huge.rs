//! Objects that are larger than any that is read: they end and begin nothing, and cost nobody anything.

use k8s_openapi::api::core::v1::ConfigMap;
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

/// A controller without users takes 50 MB as it is built for tests, and one of these objects, decoded, as much again.
const PEAK_MAX: usize = 96 << 10;

/// The most memory that a process ever had, in kB.
fn peak(pid: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"));
    let status = status.expect("it runs");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = peak.and_then(|peak| peak.split_whitespace().next()?.parse().ok());
    peak.expect("a number")
}

impl World {
    /// So many owners, which are one, and stay.
    async fn owners(&self, count: usize) -> Value {
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), &self.namespace);
        let mut owner = ConfigMap::default();
        owner.metadata.name = Some("owner".to_owned());
        let owner = maps.create(&PostParams::default(), &owner).await;
        let owner = owner.expect("the ConfigMap is admitted");
        let owner = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner.metadata.uid,
        });
        vec![owner; count].into()
    }

    /// Makes a large Service that looks like ours by its label.
    async fn create_alien(&self, name: &str) {
        let service = json!({
            "metadata": {
                "name": name,
                "labels": { "app.kubernetes.io/managed-by": MANAGED_BY },
                "annotations": { "a": "x".repeat(250_000) },
            },
            "spec": { "ports": [{ "port": 80 }] },
        });
        let service = serde_json::from_value(service).expect("a Service");
        let (services, params) = (self.services(), PostParams::default());
        let created = services.create(&params, &service).await;
        created.expect("the Service is admitted");
    }

    /// Writes metadata into an object, whoever can read it then.
    pub async fn rewrite<K: Resource<DynamicType = ()>>(
        &self,
        api: Api<K>,
        name: &str,
        change: &Value,
    ) {
        let kind = ApiResource::erase::<K>(&());
        // One that reads everything.
        let client = self.ground.client().await;
        let any: Api<DynamicObject> = match api.namespace() {
            Some(namespace) => Api::namespaced_with(client, namespace, &kind),
            None => Api::all_with(client, &kind),
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
    let watched = [&world.namespace, &other].map(|of| format!("--watch-namespace={of}"));
    let watched = watched.each_ref().map(String::as_str);
    std::mem::swap(&mut world.namespace, &mut other);
    let huge = ["huge-0", "huge-1", "huge-2"];
    for name in huge {
        world.create(&world.session(name)).await;
        world
            .rewrite(world.sessions(), name, &finalizers(MANY, &[]))
            .await;
    }
    let mut owned = world.session("owned");
    owned["metadata"]["ownerReferences"] = world.owners(5_000).await;
    world.create(&owned).await;
    for number in 0..20 {
        world.create_alien(&format!("alien-{number}")).await;
    }
    std::mem::swap(&mut world.namespace, &mut other);

    let controller = world.controller(&watched).await;
    let relay = world.relay("relay-a", &[]).await;
    world.create(&world.session("orders")).await;
    world.wait_ready("orders").await;
    let mut connection = world.connect("orders", "db").await;
    world.delete("orders").await;
    let told = dead(&mut connection, WAIT_MAX).await;
    told.expect("the client is told");
    world.wait_gone("orders").await;

    std::mem::swap(&mut world.namespace, &mut other);
    // Nobody reads its owners.
    world.wait_available("owned").await;
    let begun = world.listener_of("huge-0").await;
    assert!(begun.expect("the API answers").is_none());
    let left = world.sessions().get("huge-0").await.expect("it is there");
    assert_eq!(left.finalizers().len(), MANY, "ours did not come over them");
    // Where a process is asked for it so.
    if cfg!(target_os = "linux") {
        let peak = peak(controller.pid());
        assert!(peak < PEAK_MAX, "{peak} kB");
    }

    for name in huge {
        world
            .rewrite(world.sessions(), name, &finalizers(0, &[]))
            .await;
        world.wait_available(name).await;
    }
    for name in huge.into_iter().chain(["owned"]) {
        world.delete(name).await;
        world.wait_gone(name).await;
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
