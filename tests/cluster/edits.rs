//! A spec that changes while it is served: what was added is there, what was taken away is gone, the rest goes on.

use kube::ResourceExt;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::json;
use ssm_session_operator::crd::listener::EndReason;
use ssm_session_operator::simulator::Status;
use tokio::io::AsyncReadExt as _;

use crate::looks::{ended, live, port, status};
use crate::world::{REMOTE_PORT, TARGET, World, carry};

#[tokio::test]
async fn an_added_port_gets_listener_slices_and_service_port_and_carries_bytes() {
    let (world, operator, before) = World::serving("added").await;
    let mut connection = world.dial("orders", "db").await;

    let ports = [
        port("db", 5432, REMOTE_PORT),
        port("web", 80, world.server.address().port()),
    ];
    world.edit("orders", &json!({ "ports": ports })).await;
    let after = world.wait_ready("orders").await;

    assert_eq!(world.service_ports("orders").await, ["db", "web"]);
    assert_eq!(world.slice_ports().await, ["db", "db", "web", "web"]);
    let endpoint = status(&after).endpoint.expect("an endpoint");
    assert_eq!(endpoint.ports.len(), 2);
    world.connect("orders", "web").await;
    // The other connection goes on.
    carry(&mut connection).await;
    assert_eq!(
        live(&after, "db").map(|session| session.session_id),
        live(&before, "db").map(|session| session.session_id),
    );
    operator.stop().await.expect("it ends well");
}

#[tokio::test]
async fn a_removed_port_takes_everything_of_its_own_along_and_nothing_else() {
    let world = World::new("removed").await;
    let operator = world.all_in_one(&[]).await;
    let ports = [port("db", 5432, REMOTE_PORT), port("web", 80, REMOTE_PORT)];
    let session = world.session_with("orders", json!({ "ports": ports }));
    world.create(&session).await;
    let before = world.wait_ready("orders").await;
    let mut kept = world.connect("orders", "db").await;
    let mut doomed = world.connect("orders", "web").await;
    let gone = live(&before, "web").expect("a session").session_id;
    let stays = live(&before, "db").expect("a session").session_id;

    world
        .edit(
            "orders",
            &json!({ "ports": [port("db", 5432, REMOTE_PORT)] }),
        )
        .await;
    world.wait_ready("orders").await;
    world
        .until("one listener is left", async || {
            Ok(world
                .listeners()
                .list(&ListParams::default())
                .await?
                .items
                .len()
                == 1)
        })
        .await;
    assert_eq!(world.service_ports("orders").await, ["db"]);
    assert_eq!(world.slice_ports().await, ["db", "db"]);
    world
        .wait_aws("the port's session is terminated", |aws| {
            aws.session(&gone)
                .is_some_and(|session| session.status == Status::Terminated)
        })
        .await;
    assert_eq!(world.live_sessions(), [stays]);
    assert!(
        !matches!(doomed.read(&mut [0]).await, Ok(1..)),
        "its clients are reset"
    );
    // The other connection goes on.
    carry(&mut kept).await;
    let session = world
        .wait("orders", "the end in history", |session| {
            ended(session, &gone).is_some()
        })
        .await;
    let end = ended(&session, &gone).expect("an end");
    assert_eq!(end.end_reason, Some(EndReason::Deleted));
    assert_eq!(end.status.as_deref(), Some("Terminated"));
    operator.stop().await.expect("it ends well");
}

#[tokio::test]
async fn a_renamed_port_is_a_new_one_and_the_old_one_is_gone() {
    let (world, operator, before) = World::serving("renamed").await;
    let old = live(&before, "db").expect("a session").session_id;
    world
        .edit(
            "orders",
            &json!({ "ports": [port("sql", 5432, REMOTE_PORT)] }),
        )
        .await;
    let after = world
        .wait("orders", "the new port alone", |session| {
            crate::looks::is_ready(session) && ended(session, &old).is_some()
        })
        .await;
    assert_eq!(world.service_ports("orders").await, ["sql"]);
    assert_eq!(world.slice_ports().await, ["sql", "sql"]);
    let new = live(&after, "sql").expect("a session");
    assert_eq!(new.target.as_deref().unwrap_or(TARGET), TARGET);
    world
        .until("only the new listener and session are left", async || {
            let listeners = world.listeners().list(&ListParams::default()).await?.items;
            let ports: Vec<_> = listeners.iter().map(|l| l.spec.port.as_str()).collect();
            Ok(ports == ["sql"] && world.live_sessions() == [new.session_id.clone()])
        })
        .await;
    world.connect("orders", "sql").await;
    operator.stop().await.expect("it ends well");
}

#[tokio::test]
async fn labels_and_annotations_of_the_service_come_and_go_and_others_stay() {
    let (world, operator, before) = World::serving("labels").await;
    // Somebody else's, such as a mesh's.
    let theirs = json!({ "metadata": {
        "labels": { "theirs": "1" },
        "annotations": { "theirs": "1" },
    } });
    let patched = world
        .services()
        .patch("orders", &PatchParams::default(), &Patch::Merge(theirs))
        .await;
    patched.expect("the Service can be patched");

    for (step, own) in [
        json!({ "team": "a", "tier": "x" }),
        json!({ "team": "b" }),
        json!({}),
    ]
    .into_iter()
    .enumerate()
    {
        // A merge patch takes away only what it names.
        let clear = json!({ "service": null });
        world.edit("orders", &clear).await;
        world
            .edit(
                "orders",
                &json!({ "service": { "labels": own, "annotations": own } }),
            )
            .await;
        world
            .until(&format!("step {step}"), async || {
                let service = world.services().get("orders").await?;
                let mine = |of: &std::collections::BTreeMap<String, String>| {
                    let mut mine = of.clone();
                    mine.retain(|key, _| key == "team" || key == "tier");
                    json!(mine)
                };
                Ok(mine(service.labels()) == own && mine(service.annotations()) == own)
            })
            .await;
        let service = world.services().get("orders").await.expect("the Service");
        assert_eq!(
            service.labels().get("theirs").map(String::as_str),
            Some("1")
        );
        assert_eq!(
            service.annotations().get("theirs").map(String::as_str),
            Some("1")
        );
    }
    let after = world.wait_ready("orders").await;
    assert_eq!(
        live(&after, "db").map(|session| session.session_id),
        live(&before, "db").map(|session| session.session_id),
        "the AWS session is none of the Service's business",
    );
    operator.stop().await.expect("it ends well");
}

#[tokio::test]
async fn another_service_name_moves_the_service_and_connections_go_on() {
    let (world, operator, before) = World::serving("moved").await;
    let mut connection = world.connect("orders", "db").await;

    world
        .edit("orders", &json!({ "service": { "name": "ledger" } }))
        .await;
    let after = world.wait_ready("orders").await;
    let endpoint = status(&after).endpoint.expect("an endpoint");
    assert_eq!(endpoint.host, format!("ledger.{}.svc", world.namespace));
    world
        .until("only the new Service is left", async || {
            let services = world.services().list(&ListParams::default()).await?.items;
            let names: Vec<_> = services.iter().map(ResourceExt::name_any).collect();
            Ok(names == ["ledger"])
        })
        .await;
    world.connect("ledger", "db").await;
    // The old connection goes on.
    carry(&mut connection).await;
    assert_eq!(
        live(&after, "db").map(|session| session.session_id),
        live(&before, "db").map(|session| session.session_id),
    );
    operator.stop().await.expect("it ends well");
}
