//! A spec whose bytes go another way: another AWS session takes over, on the same relay port of the same listener.

use std::collections::BTreeMap;

use kube::ResourceExt as _;
use serde_json::{Value, json};
use ssm_session_operator::crd::listener::EndReason;
use ssm_session_operator::crd::{SsmListener, SsmSession};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;

use crate::looks::{ended, is_ready, live, port, status};
use crate::transfer::exchange;
use crate::world::World;

const OTHER_TARGET: &str = "i-0fedcba9876543210";

/// Edits `spec`, and holds that another AWS session takes over on the same relay port of the same listener.
async fn assert_replaces_the_session(world: &World, what: &str, spec: Value) {
    let before = world.wait_ready("orders").await;
    let old = live(&before, "db").expect("a session").session_id;
    let listener = world.listener(&before, "db").await;
    let mut client = world.dial("orders", "db").await;
    // The dial is through once the far end has answered, so that it is this session's client.
    exchange(&mut client, 10, 10).await.expect("bytes arrive");

    world.edit("orders", &spec).await;
    let after = world
        .wait("orders", what, |session| {
            is_ready(session)
                && live(session, "db").is_some_and(|now| now.session_id != old)
                && ended(session, &old).is_some()
        })
        .await;

    assert!(
        !matches!(client.read(&mut [0]).await, Ok(1..)),
        "{what}: the old client is reset"
    );
    let end = ended(&after, &old).expect("an end");
    assert_eq!(end.end_reason, Some(EndReason::Replaced), "{what}");
    assert_eq!(end.status.as_deref(), Some("Terminated"), "{what}");
    let same = world.listener(&after, "db").await;
    assert_eq!(same.uid(), listener.uid(), "{what}: the same object");
    let number = |listener: &SsmListener| listener.status.as_ref().and_then(|status| status.port);
    assert_eq!(
        number(&same),
        number(&listener),
        "{what}: the same relay port"
    );
    assert_eq!(
        world.live_sessions().len(),
        1,
        "{what}: one session is live"
    );
}

#[tokio::test]
async fn what_changes_the_way_of_the_bytes_replaces_the_session_on_the_same_relay_port() {
    let world = World::new("replaced").await;
    let operator = world.all_in_one(&[]).await;
    let _other_agent = world.start_agent(OTHER_TARGET, None).await;
    world.create(&world.session("orders")).await;

    let real_port = world.server.address().port();
    let ports = json!({ "ports": [port("db", 5432, real_port)] });
    assert_replaces_the_session(&world, "another remotePort", ports).await;
    let target = json!({ "target": { "id": OTHER_TARGET } });
    assert_replaces_the_session(&world, "another target", target).await;
    let shown = |session: &SsmSession| {
        live(session, "db").and_then(|s| s.target).as_deref() == Some(OTHER_TARGET)
    };
    world.wait("orders", "its target", shown).await;
    let reason = json!({ "reason": "another reason" });
    assert_replaces_the_session(&world, "another reason", reason).await;
    let reason = world
        .simulator
        .sessions()
        .pop()
        .and_then(|session| session.reason);
    assert!(
        reason
            .expect("a reason")
            .starts_with("another reason [ssm-operator ")
    );
    let class = format!("{}-west", world.class);
    world.create_class_in(&class, "eu-west-1").await;
    assert_replaces_the_session(&world, "another class", json!({ "className": class })).await;
    let session = world.wait_ready("orders").await;
    assert_eq!(status(&session).class, Some(class));
    operator.stop().await.expect("it ends well");
}

#[tokio::test]
async fn a_changed_remote_port_leads_clients_to_the_new_destination() {
    let world = World::new("retargeted").await;
    let operator = world.all_in_one(&[]).await;
    world.create(&world.session("orders")).await;
    world.wait_ready("orders").await;
    let destination = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let number = destination.local_addr().expect("an address").port();
    // More than is read.
    let labels: BTreeMap<_, _> = (0..400)
        .map(|number| (format!("team-{number}"), "x".repeat(50)))
        .collect();
    let listener = world.listener_of("orders").await;
    let listener = listener.expect("the API answers").expect("it is served");
    let labelled = json!({ "metadata": { "labels": labels } });
    world
        .rewrite(world.listeners(), &listener.name_any(), &labelled)
        .await;
    world
        .edit("orders", &json!({ "ports": [port("db", 5432, number)] }))
        .await;
    world.wait_ready("orders").await;
    let (_client, accepted) = tokio::join!(world.dial("orders", "db"), destination.accept());
    accepted.expect("the new destination is dialled");
    let listener = world.listener_of("orders").await;
    let listener = listener.expect("the API answers").expect("it is served");
    assert!(listener.labels().len() > labels.len(), "they stay");
    operator.stop().await.expect("it ends well");
}
