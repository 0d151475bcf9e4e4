//! Several installations in one cluster: none disturbs another, and a session is served by one of them at a time.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Namespace;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;
use ssm_session_operator::crd::{SsmListener, SsmSession, installation, session_finalizer};
use ssm_session_operator::simulator::Operation;
use tokio::net::TcpStream;

use crate::http;
use crate::listeners::{live_session, port};
use crate::looks::{is_ready, live};
use crate::process::Process;
use crate::transfer;
use crate::wait::ask_until;
use crate::world::{WAIT_MAX, World};

/// A session is not let go before everything that was made for it is gone.
const PATIENT: &str = "--finalizer-timeout=1h";

/// What a controller says of a session that another installation holds.
const HELD: &str = "the finalizer of another installation is on the session";

impl World {
    /// The installation that an operator in this namespace is.
    pub async fn installation_in(&self, namespace: &str) -> String {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let namespace = namespaces.get(namespace).await.expect("it is there");
        let uid = namespace.uid().expect("it has one");
        installation(&uid, &self.controller_name())
    }

    /// This world's installation.
    pub async fn installation(&self) -> String {
        self.installation_in(&self.operator_namespace).await
    }

    /// Starts `all-in-one` in another namespace, for the same classes and the same namespace.
    async fn all_in_one_in(&self, namespace: &str) -> Process {
        let namespace = format!("--namespace={namespace}");
        self.all_in_one(&[&namespace, "--resync-interval=300ms"])
            .await
    }

    /// The listeners of an operator's namespace.
    async fn listeners_in(&self, namespace: &str) -> Vec<SsmListener> {
        let listeners: Api<SsmListener> = Api::namespaced(self.client.clone(), namespace);
        let listeners = listeners.list(&ListParams::default()).await;
        listeners.expect("the API answers").items
    }

    /// The version of everything that is written for a session, by kind and name.
    async fn versions(&self) -> BTreeMap<String, Option<String>> {
        let all = ListParams::default();
        let mut versions = BTreeMap::new();
        let mut add = |kind: &str, meta: &kube::api::ObjectMeta| {
            let name = meta.name.clone().unwrap_or_default();
            versions.insert(format!("{kind}/{name}"), meta.resource_version.clone());
        };
        let sessions = self.sessions().list(&all).await.expect("the API answers");
        sessions.iter().for_each(|o| add("session", &o.metadata));
        let services = self.services().list(&all).await.expect("the API answers");
        services.iter().for_each(|o| add("service", &o.metadata));
        let slices = self.slices().list(&all).await.expect("the API answers");
        slices.iter().for_each(|o| add("slice", &o.metadata));
        versions
    }
}

/// Whether AWS's word is in the status: nothing more is to be written then.
fn is_mirrored(session: &SsmSession) -> bool {
    let status = live(session, "db").and_then(|session| session.status);
    is_ready(session) && status.as_deref() == Some("Connected")
}

#[tokio::test]
async fn a_second_installation_in_a_namespace_begins_nothing_and_does_not_disturb_the_first() {
    let world = World::new("second").await;
    let first = world.all_in_one(&[]).await;
    world.create(&world.session("orders")).await;
    world.wait("orders", "mirrored", is_mirrored).await;
    let before = world.wait_serving("orders").await;
    let mut connection = world.dial("orders", "db").await;
    transfer::exchange(&mut connection, 1000, 1000)
        .await
        .expect("all bytes arrive");

    let name = "--controller-name=example.com/second";
    let mut processes = vec![
        world.all_in_one(&[name, "--relay-name=relay-b"]).await,
        world.controller(&[name]).await,
        world.relay("relay-c", &[name]).await,
    ];
    for process in &mut processes {
        let said = "the namespace is another installation's";
        let line = process.wait_for_log(said, WAIT_MAX).await;
        let line = line.expect("it says why it waits");
        assert!(line.contains(&world.controller_name()), "{line}");
        let address = process.admin_address(WAIT_MAX).await.expect("an address");
        let ready = http::get(&address, "/readyz").await.expect("an answer");
        assert_eq!(ready.status, 503);
    }
    world.wait_ten_polls().await;
    transfer::exchange(&mut connection, 1000, 1000)
        .await
        .expect("the stream goes on");
    let after = world.wait_serving("orders").await;
    assert_eq!(after.uid(), before.uid());
    assert_eq!(after.spec, before.spec, "it stays where it was");
    assert_eq!(live_session(&after), live_session(&before));
    assert_eq!(world.simulator.calls(Operation::StartSession), 1);
    for relay in ["relay-b", "relay-c"] {
        assert!(world.lease(relay).await.is_err(), "{relay} holds a Lease");
    }

    for process in processes {
        process.stop().await.expect("it ends well");
    }
    world.delete("orders").await;
    world.wait_gone("orders").await;
    world.assert_nothing_is_left().await;
    first.stop().await.expect("it ends well");
}

#[tokio::test]
async fn of_two_operators_that_serve_the_same_sessions_one_does_and_nobody_writes_on_and_on() {
    let world = World::new("twice").await;
    let elsewhere = world
        .ground
        .namespace(&world.client, "twice-operator")
        .await;
    let here = world.operator_namespace.clone();
    let operators = [
        world.all_in_one_in(&here).await,
        world.all_in_one_in(&elsewhere).await,
    ];
    world.create(&world.session("orders")).await;
    let session = world.wait("orders", "mirrored", is_mirrored).await;
    let ours = session_finalizer(&world.installation_in(&here).await);
    let theirs = session_finalizer(&world.installation_in(&elsewhere).await);
    let finalizers = session.finalizers();
    assert_eq!(finalizers.len(), 1, "{finalizers:?}");
    assert!(finalizers[0] == ours || finalizers[0] == theirs);

    let said = async || world.logs().contains(HELD).then_some(());
    let said = ask_until(WAIT_MAX, said).await;
    said.expect("the other says why it does nothing");

    let before = world.versions().await;
    assert_eq!(
        before.len(),
        4,
        "one session, one Service, two slices: {before:?}"
    );
    // Every object is reconciled three times a second meanwhile, by both.
    for _ in 0..3 {
        world.wait_ten_polls().await;
    }
    assert_eq!(world.versions().await, before);
    let listeners = [
        world.listeners_in(&here).await,
        world.listeners_in(&elsewhere).await,
    ];
    assert_eq!(listeners.concat().len(), 1);
    assert_eq!(world.simulator.calls(Operation::StartSession), 1);
    assert_eq!(world.logs().matches(HELD).count(), 1, "said, and said once");
    let told = world.events_of("orders", "HeldByAnother").await;
    let notes: Vec<_> = told
        .iter()
        .filter_map(|event| event.message.as_deref())
        .collect();
    assert!(
        matches!(notes[..], [note] if note.contains(&finalizers[0])),
        "{notes:?}"
    );
    assert!(!world.logs().contains("reconcile failed"));

    world.delete("orders").await;
    world.wait_gone("orders").await;
    world.assert_nothing_is_left().await;
    assert!(world.listeners_in(&elsewhere).await.is_empty());
    for operator in operators {
        operator.stop().await.expect("it ends well");
    }
}

#[tokio::test]
async fn a_session_goes_over_once_the_finalizer_of_the_installation_that_is_gone_is_taken_away() {
    let world = World::new("over").await;
    let elsewhere = world.ground.namespace(&world.client, "over-operator").await;
    let here = world.operator_namespace.clone();
    let first = world.all_in_one_in(&here).await;
    world.create(&world.session("orders")).await;
    world.wait("orders", "mirrored", is_mirrored).await;
    let old = live_session(&world.wait_serving("orders").await);

    first.kill().await.expect("it can be killed");
    let mut second = world.all_in_one_in(&elsewhere).await;
    let held = second.wait_for_log(HELD, WAIT_MAX).await;
    held.expect("it says why it waits");
    world.wait_ten_polls().await;
    assert!(world.listeners_in(&elsewhere).await.is_empty());

    let nobodys = Patch::Merge(json!({ "metadata": { "finalizers": null } }));
    let params = PatchParams::default();
    let freed = world.sessions().patch("orders", &params, &nobodys).await;
    freed.expect("people may take finalizers away");
    let theirs = session_finalizer(&world.installation_in(&elsewhere).await);
    let session = world
        .wait("orders", "served by the other", |session| {
            session.finalizers().contains(&theirs)
                && is_mirrored(session)
                && live(session, "db").is_some_and(|live| live.session_id != old)
        })
        .await;
    let new = live(&session, "db").expect("a session").session_id;
    let mut connection = world.dial("orders", "db").await;
    transfer::exchange(&mut connection, 1000, 1000)
        .await
        .expect("all bytes arrive");

    // The first comes back, and ends what it had made for a session that is no longer its own.
    let first = world.all_in_one_in(&here).await;
    world.wait_terminated(&old).await;
    world
        .until("its listener is gone", async || {
            Ok(world.listeners_in(&here).await.is_empty())
        })
        .await;
    transfer::exchange(&mut connection, 1000, 1000)
        .await
        .expect("the stream goes on");
    world
        .wait_aws("one session", |_| world.live_sessions() == [new.clone()])
        .await;

    world.delete("orders").await;
    world.wait_gone("orders").await;
    world.assert_nothing_is_left().await;
    first.stop().await.expect("it ends well");
    second.stop().await.expect("it ends well");
}

#[tokio::test]
async fn a_session_whose_class_is_edited_goes_over_to_the_other_installation_in_order() {
    let world = World::new("goes").await;
    let elsewhere = world.ground.namespace(&world.client, "goes-operator").await;
    let other = format!("example.com/{}", world.namespace);
    let class = format!("{}-theirs", world.class);
    world.create_class_of(&class, &other).await;
    let (namespace, name) = (
        format!("--namespace={elsewhere}"),
        format!("--controller-name={other}"),
    );
    let operators = [
        world.all_in_one(&[PATIENT]).await,
        world.all_in_one(&[&namespace, &name, PATIENT]).await,
    ];
    let mut following = world.follow("orders").await;
    world.create(&world.session("orders")).await;
    let session = following.until("mirrored", is_mirrored).await;
    let old = live(&session, "db").expect("a session").session_id;
    let ours = session.finalizers().to_vec();

    world.edit("orders", &json!({ "className": class })).await;
    let moved = |session: &SsmSession| session.finalizers() != ours && is_mirrored(session);
    let session = following.until("served by the other", moved).await;
    let new = live(&session, "db").expect("a session").session_id;
    world.wait_terminated(&old).await;
    assert_eq!(world.live_sessions(), [new]);
    assert!(
        world
            .listeners_in(&world.operator_namespace)
            .await
            .is_empty()
    );
    for version in &following.versions {
        let holders = version.finalizers();
        assert!(holders.len() <= 1, "two hold it at once: {holders:?}");
    }
    let mut connection = world.dial("orders", "db").await;
    transfer::exchange(&mut connection, 1000, 1000)
        .await
        .expect("all bytes arrive");

    world.delete("orders").await;
    world.wait_gone("orders").await;
    world.assert_nothing_is_left().await;
    for operator in operators {
        operator.stop().await.expect("it ends well");
    }
}

#[tokio::test]
async fn a_namespace_that_is_no_longer_watched_loses_its_access_and_its_sessions() {
    let world = World::new("unwatched").await;
    let other = world.ground.namespace(&world.client, "watched").await;
    let first = world.controller(&[]).await;
    let relay = world.relay("relay-a", &[]).await;
    world.create(&world.session("orders")).await;
    world.wait("orders", "mirrored", is_mirrored).await;
    let serving = world.wait_serving("orders").await;
    let mut connection = world.dial("orders", "db").await;
    transfer::exchange(&mut connection, 1000, 1000)
        .await
        .expect("all bytes arrive");

    first.stop().await.expect("it ends well");
    let watched = format!("--watch-namespace={other}");
    let mut second = world.controller(&[&watched]).await;
    transfer::dead(&mut connection, WAIT_MAX)
        .await
        .expect("the client is told");
    let said = "the namespace of its SsmSession is not watched";
    let line = second.wait_for_log(said, WAIT_MAX).await;
    let line = line.expect("it says so");
    assert!(line.contains("WARN") && line.contains("orders"), "{line}");
    world.wait_terminated(&live_session(&serving)).await;
    world
        .until("no listener is left", async || {
            Ok(world.listener_of("orders").await?.is_none())
        })
        .await;
    let refused = TcpStream::connect(("127.0.0.1", port(&serving))).await;
    refused.expect_err("nobody listens any more");

    // What people are told to do for the session itself.
    let sessions = world.sessions();
    let background = DeleteParams::default();
    let deleted = sessions.delete("orders", &background).await;
    deleted.expect("it can be deleted");
    let session = sessions.get("orders").await.expect("it is still there");
    assert!(session.metadata.deletion_timestamp.is_some());
    let nobodys = Patch::Merge(json!({ "metadata": { "finalizers": null } }));
    let params = PatchParams::default();
    let freed = sessions.patch("orders", &params, &nobodys).await;
    freed.expect("people may take finalizers away");
    world.wait_gone("orders").await;
    world.assert_nothing_is_left().await;
    relay.stop().await.expect("it ends well");
    second.stop().await.expect("it ends well");
}
