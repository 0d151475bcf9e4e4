//! What is written of a plan, whatever the API server answers.

use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::ObjectMeta;
use serde_json::json;

use super::super::act::act;
use super::*;
use crate::controller::error::Error;
use crate::controller::fake_aws::FakeAws;
use crate::controller::fixtures::{Asked, calls, context, listener, relays, unreadable_api};
use crate::crd::SsmListener;

fn named(name: &str) -> SsmListener {
    let mut listener = listener("sql").build();
    listener.metadata.name = Some(name.to_owned());
    listener
}

/// Acts with a plan that has something of each, where these names are taken.
async fn acted(taken: &'static [&'static str]) -> (Result<SsmSession, Error>, Asked) {
    let world = World::made(&["sql"], Vec::new());
    let mut context = context(Arc::new(FakeAws::default()), relays(&[]));
    let (client, asked) = unreadable_api(taken);
    context.client = client;
    let mut created = desired::service(&world.observed.session);
    created.metadata.name = Some("created".to_owned());
    let slice = EndpointSlice {
        metadata: ObjectMeta {
            name: Some("applied".to_owned()),
            ..ObjectMeta::default()
        },
        ..EndpointSlice::default()
    };
    let plan = Plan {
        delete_slices: vec!["withdrawn".to_owned()],
        delete_listeners: vec![("revoked".to_owned(), "uid".to_owned())],
        create_service: Some(created),
        update_service: Some(desired::service(&world.observed.session)),
        create_listeners: vec![named("first"), named("second")],
        update_listeners: vec![named("updated")],
        apply_slices: vec![slice],
        delete_services: vec![("renamed".to_owned(), "uid".to_owned())],
        ..Plan::default()
    };
    (act(&world.observed, &plan, &context).await, asked)
}

const ALL: [&str; 9] = [
    "DELETE revoked",
    "DELETE withdrawn",
    "POST created",
    "PATCH db",
    "POST first",
    "POST second",
    "PATCH updated",
    "PATCH applied",
    "DELETE renamed",
];

#[tokio::test]
async fn a_write_whose_answer_can_not_be_read_is_done() {
    let (result, asked) = acted(&[]).await;
    result.expect("nothing failed");
    assert_eq!(calls(&asked), ALL);
}

#[tokio::test]
async fn a_listener_that_is_there_though_no_cache_shows_it_keeps_nothing_from_being_written() {
    let (result, asked) = acted(&["first"]).await;
    assert!(result.expect_err("it is looked at again").is_conflict());
    assert_eq!(calls(&asked), ALL);
}

#[tokio::test]
async fn of_a_listener_that_changes_nothing_is_written_but_its_spec() {
    let (_, asked) = acted(&[]).await;
    let mut asked = asked.lock().expect("nobody else has it").clone();
    asked.retain(|(call, _)| call == "PATCH updated");
    let listener = named("updated");
    let replace = |path, value| json!({ "op": "replace", "path": path, "value": value });
    let expected = json!([
        replace("/metadata/uid", json!(listener.metadata.uid)),
        replace("/metadata/resourceVersion", json!("1")),
        replace("/spec", json!(listener.spec)),
    ]);
    assert_eq!(asked.remove(0).1, expected);
}
