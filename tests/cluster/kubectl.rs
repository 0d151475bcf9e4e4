//! What people and GitOps tools see: kubectl's columns, Events and waits.

use ssm_session_operator::crd::SsmSession;

use crate::looks::{is_ready, live, status};
use crate::world::{TARGET, World};

#[tokio::test]
async fn a_session_that_nobody_has_looked_at_yet_says_so_to_those_who_wait_for_it() {
    let world = World::new("fresh").await;
    let session = world.create(&world.session("orders")).await;
    assert_eq!(session.metadata.generation, Some(1));
    assert_eq!(status(&session).observed_generation, Some(-1));
}

#[tokio::test]
async fn kubectl_waits_for_a_session_and_shows_its_columns_and_events() {
    let world = World::new("kubectl").await;
    let operator = world.all_in_one(&[]).await;
    world.create(&world.session("orders")).await;
    let namespace = format!("--namespace={}", world.namespace);
    let wait = [
        "wait",
        "--for=condition=Ready",
        "ssms/orders",
        "--timeout=90s",
        &namespace,
    ];
    let waited = world.ground.kubectl(&wait).await.expect("it becomes Ready");
    assert!(waited.contains("condition met"), "{waited}");

    let mirrored = |session: &SsmSession| is_ready(session) && live(session, "db").is_some();
    let session = world.wait("orders", "its session", mirrored).await;
    let id = live(&session, "db").expect("a session").session_id;
    let table = world.ground.kubectl(&["get", "ssms", &namespace]).await;
    let table = table.expect("kubectl prints a table");
    let rows: Vec<Vec<&str>> = table
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    let columns = [
        "NAME", "READY", "REASON", "TARGET", "SESSION", "ENDPOINT", "AGE",
    ];
    assert_eq!(rows[0], columns);
    let host = format!("orders.{}.svc", world.namespace);
    assert_eq!(
        rows[1][..6],
        ["orders", "True", "Available", TARGET, &id, &host]
    );

    let described = ["describe", "ssms", "orders", &namespace];
    let events = format!("{id} was started for port db");
    world
        .until("kubectl describes the Event", async || {
            let text = world.ground.kubectl(&described).await?;
            let text = text.split("Events:").nth(1).unwrap_or_default();
            Ok(text.contains("SessionStarted") && text.contains(&events))
        })
        .await;
    let all = world
        .ground
        .kubectl(&["get", "aws", &namespace, "--output=name"])
        .await;
    let all = all.expect("kubectl knows the category");
    assert!(all.contains("ssmsession.ssm-operator.dev/orders"), "{all}");

    let delete = ["delete", "ssms", "orders", "--timeout=90s", &namespace];
    world
        .ground
        .kubectl(&delete)
        .await
        .expect("kubectl waits until it is gone");
    world.assert_nothing_is_left().await;
    operator.stop().await.expect("it ends well");
}
