//! Classes: which sessions an installation serves, and what a missing class means.

use kube::api::{DeleteParams, PostParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;
use ssm_session_operator::crd::{
    DEFAULT_CLASS_ANNOTATION, SsmListener, SsmSession, SsmSessionClass,
};
use ssm_session_operator::simulator::Operation;

use crate::looks::{ended, is_ready, is_stalled, live, message, status};
use crate::transfer::exchange;
use crate::world::{World, condition, reason};

fn classes(world: &World) -> Api<SsmSessionClass> {
    Api::all(world.client.clone())
}

async fn create_default_class(world: &World, name: &str) {
    let mut annotations = serde_json::Map::new();
    annotations.insert(DEFAULT_CLASS_ANNOTATION.to_owned(), "true".into());
    world.create_class(name, &annotations.into()).await;
}

/// Without a class: said at once, and Stalled only later.
fn assert_said_before_stalled(versions: &[SsmSession]) {
    let resolving = |session: &SsmSession| reason(session, "Reconciling") == "Resolving";
    let said = versions.iter().position(resolving);
    let stalled = |session: &SsmSession| is_stalled(session, "ClassNotFound");
    let stalled = versions.iter().position(stalled);
    assert!(
        said.is_some() && said < stalled,
        "said in {said:?}, Stalled in {stalled:?}"
    );
}

#[tokio::test]
async fn without_its_class_a_session_waits_and_goes_on_when_the_class_appears() {
    let world = World::new("classless").await;
    let operator = world.all_in_one(&[]).await;
    let late = format!("{}-late", world.class);
    let mut following = world.follow("orders").await;
    world
        .create(&world.session_with("orders", json!({ "className": late })))
        .await;
    let stalled = |session: &SsmSession| is_stalled(session, "ClassNotFound");
    let session = following.until("Stalled", stalled).await;
    assert_said_before_stalled(&following.versions);
    assert!(message(&session, "Stalled").contains(&late));
    assert_eq!(
        (condition(&session, "Ready"), reason(&session, "Ready")),
        ("False", "Failed")
    );
    assert_eq!(condition(&session, "Available"), "False");
    assert_eq!(world.simulator.calls(Operation::StartSession), 0);
    assert_eq!(
        world
            .services()
            .get_opt("orders")
            .await
            .expect("the API answers"),
        None
    );

    world.create_class(&late, &json!({})).await;
    let session = world.wait_ready("orders").await;
    assert_eq!(status(&session).class, Some(late));
    operator.stop().await.expect("it ends well");
}

#[tokio::test]
async fn a_session_that_names_no_class_has_the_default_one() {
    let world = World::new("default").await;
    let operator = world.all_in_one(&[]).await;
    let name = format!("{}-default", world.class);
    create_default_class(&world, &name).await;
    world
        .create(&world.session_with("orders", json!({ "className": null })))
        .await;
    let session = world.wait_ready("orders").await;
    assert_eq!(status(&session).class, Some(name));
    operator.stop().await.expect("it ends well");
}

#[tokio::test]
async fn two_default_classes_are_none_and_both_are_named() {
    let world = World::new("defaults").await;
    let operator = world.all_in_one(&[]).await;
    let (one, two) = (
        format!("{}-one", world.class),
        format!("{}-two", world.class),
    );
    create_default_class(&world, &one).await;
    create_default_class(&world, &two).await;
    let mut following = world.follow("orders").await;
    world
        .create(&world.session_with("orders", json!({ "className": null })))
        .await;
    let stalled = |session: &SsmSession| is_stalled(session, "ClassNotFound");
    let session = following.until("Stalled", stalled).await;
    let words = message(&session, "Stalled");
    assert!(words.contains(&one) && words.contains(&two), "{words}");
    assert_said_before_stalled(&following.versions);
    assert_eq!(world.simulator.calls(Operation::StartSession), 0);

    let deleted = classes(&world).delete(&two, &DeleteParams::default()).await;
    deleted.expect("the class can be deleted");
    let session = world.wait_ready("orders").await;
    assert_eq!(status(&session).class, Some(one));
    operator.stop().await.expect("it ends well");
}

/// Creates a session that must stay as it is, and another one that shows when the operator has had its chance.
async fn assert_untouched(world: &World, sessions: &Api<SsmSession>, session: serde_json::Value) {
    let session: SsmSession = serde_json::from_value(session).expect("a session");
    let created = sessions.create(&PostParams::default(), &session).await;
    let created = created.expect("the session is admitted");
    world.create(&world.session("ours")).await;
    world.wait_ready("ours").await;
    world.wait_polls(3).await;
    let name = created.name_any();
    let now = sessions.get(&name).await.expect("the session");
    assert_eq!(now, created, "every byte is as it was");
    assert!(now.finalizers().is_empty());
    assert_eq!(
        status(&now).observed_generation,
        Some(-1),
        "as it was created"
    );
    assert_eq!(
        world.simulator.sessions().len(),
        1,
        "only the other session is started"
    );
}

#[tokio::test]
async fn a_session_of_another_installations_class_is_not_touched() {
    let world = World::new("foreign").await;
    let operator = world.all_in_one(&[]).await;
    let name = format!("{}-foreign", world.class);
    let class: SsmSessionClass = serde_json::from_value(json!({
        "metadata": { "name": name },
        "spec": { "controllerName": "somebody.else/controller", "aws": { "region": "eu-central-1" } },
    }))
    .expect("a class");
    let created = classes(&world).create(&PostParams::default(), &class).await;
    created.expect("the class is admitted");
    let session = world.session_with("theirs", json!({ "className": name }));
    assert_untouched(&world, &world.sessions(), session).await;
    operator.stop().await.expect("it ends well");
}

#[tokio::test]
async fn a_session_in_a_namespace_that_is_not_watched_is_not_touched() {
    let world = World::new("watched").await;
    let operator = world.all_in_one(&[]).await;
    let elsewhere = world.ground.namespace(&world.client, "unwatched").await;
    let mut session = world.session("theirs");
    session["metadata"]["namespace"] = elsewhere.clone().into();
    let sessions = Api::namespaced(world.client.clone(), &elsewhere);
    assert_untouched(&world, &sessions, session).await;
    operator.stop().await.expect("it ends well");
}

#[tokio::test]
async fn a_deleted_class_ends_its_sessions_later_and_with_the_identity_that_it_had() {
    let world = World::new("deleted").await;
    let operator = world.all_in_one(&[]).await;
    let mut following = world.follow("orders").await;
    world.create(&world.session("orders")).await;
    let before = following.until("ready", is_ready).await;
    let old = live(&before, "db").expect("a session").session_id;
    let mut connection = world.dial("orders", "db").await;
    exchange(&mut connection, 1000, 1000)
        .await
        .expect("bytes arrive");

    let deleted = classes(&world)
        .delete(&world.class, &DeleteParams::default())
        .await;
    deleted.expect("the class can be deleted");
    following.versions.clear();
    let over = |session: &SsmSession| {
        is_stalled(session, "ClassNotFound") && ended(session, &old).is_some()
    };
    let session = following.until("the end of its sessions", over).await;
    assert_said_before_stalled(&following.versions);
    let served = |session: &SsmSession| {
        reason(session, "Reconciling") == "Resolving" && condition(session, "Available") == "True"
    };
    assert!(
        following.versions.iter().any(served),
        "until Stalled it is served as before"
    );
    let end = ended(&session, &old).expect("an end");
    assert_eq!(end.status.as_deref(), Some("Terminated"));
    assert!(
        end.end_date.is_some(),
        "AWS is asked for the end though no class says how: {end:?}"
    );
    world
        .until(
            "no listener, no slice and no AWS session is left",
            async || {
                let listeners: Vec<SsmListener> = world
                    .listeners()
                    .list(&kube::api::ListParams::default())
                    .await?
                    .items;
                Ok(listeners.is_empty()
                    && world.slice_ports().await.is_empty()
                    && world.live_sessions().is_empty())
            },
        )
        .await;

    world.create_class(&world.class, &json!({})).await;
    world.wait_ready("orders").await;
    let mut connection = world.dial("orders", "db").await;
    exchange(&mut connection, 1000, 1000)
        .await
        .expect("bytes arrive");
    operator.stop().await.expect("it ends well");
}
