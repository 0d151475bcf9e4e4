//! What a served definition may lack, and what is said of it.

use std::net::Ipv4Addr;
use std::sync::{Mutex, PoisonError};

use axum::extract::State;
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use axum::{Json, Router};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::JSONSchemaProps;
use kube::{Client, Config};
use serde_json::{Value, json};

use super::*;
use crate::controller::fake_aws::FakeAws;
use crate::controller::fixtures::{context, relays};

fn ours(kind: Kind) -> CustomResourceDefinition {
    let all = definitions().into_iter();
    let mut of = all.filter(|definition| definition.kind == kind);
    of.next().expect("each of ours is defined").ours
}

/// A definition of ours, otherwise than it is.
fn bent(kind: Kind, bend: impl FnOnce(&mut Value)) -> CustomResourceDefinition {
    let mut definition = serde_json::to_value(ours(kind)).expect("plain data");
    bend(&mut definition);
    serde_json::from_value(definition).expect("it is still one")
}

/// Of the first version, what is at this path.
fn at<'a>(definition: &'a mut Value, path: &str) -> &'a mut Value {
    let schema = "/spec/versions/0/schema/openAPIV3Schema";
    let found = definition.pointer_mut(&format!("{schema}{path}"));
    found.unwrap_or_else(|| panic!("there is no {path}"))
}

fn remove(definition: &mut Value, path: &str, field: &str) {
    let removed = at(definition, path)
        .as_object_mut()
        .expect("a map")
        .remove(field);
    assert!(removed.is_some(), "{path} has no {field}");
}

#[test]
fn each_kind_of_ours_is_compared() {
    let compared: Vec<_> = definitions().iter().map(|of| of.kind).collect();
    assert_eq!(compared, Kind::DEFINED);
}

#[test]
fn a_definition_lacks_nothing_of_itself_nor_of_an_older_one() {
    for kind in Kind::DEFINED {
        assert_eq!(lacking(&ours(kind), &ours(kind)), [""; 0]);
    }
    let older = bent(Kind::SsmSession, |definition| {
        remove(definition, "/properties/status/properties", "nextRetryTime");
    });
    assert_eq!(lacking(&older, &ours(Kind::SsmSession)), [""; 0]);
}

#[test]
fn fields_that_are_missing_are_named_by_their_paths_and_nothing_inside_of_them() {
    let served = bent(Kind::SsmSessionClass, |definition| {
        let aws = "/properties/spec/properties/aws/properties";
        remove(definition, aws, "roleArn");
        remove(definition, aws, "endpoints");
    });
    let lacks = lacking(&ours(Kind::SsmSessionClass), &served);
    assert_eq!(lacks, ["spec.aws.endpoints", "spec.aws.roleArn"]);
}

#[test]
fn fields_are_found_in_lists_and_in_maps() {
    let served = bent(Kind::SsmSession, |definition| {
        let port = "/properties/spec/properties/ports/items/properties";
        remove(definition, port, "remoteHost");
    });
    assert_eq!(
        lacking(&ours(Kind::SsmSession), &served),
        ["spec.ports[].remoteHost"]
    );
    let with_map = |values: &[&str]| {
        let properties: serde_json::Map<_, _> = values
            .iter()
            .map(|value| ((*value).to_owned(), json!({})))
            .collect();
        bent(Kind::SsmSession, |definition| {
            let map = json!({ "additionalProperties": { "properties": properties } });
            at(definition, "/properties")["more"] = map;
        })
    };
    let lacks = lacking(&with_map(&["a", "b"]), &with_map(&["a"]));
    assert_eq!(lacks, ["more[].b"]);
}

#[test]
fn values_that_would_be_refused_are_missing_too() {
    let reasons = "/properties/status/properties/history/items/properties/endReason";
    let served = bent(Kind::SsmSession, |definition| {
        let values = at(definition, reasons)["enum"].as_array_mut();
        values.expect("a list").retain(|value| value != "Broken");
    });
    assert_eq!(
        lacking(&ours(Kind::SsmSession), &served),
        ["status.history[].endReason=Broken"]
    );
}

#[test]
fn a_version_that_is_not_served_is_missing_as_a_whole() {
    let served = bent(Kind::SsmListener, |definition| {
        definition["spec"]["versions"][0]["served"] = json!(false);
    });
    assert_eq!(
        lacking(&ours(Kind::SsmListener), &served),
        ["version v1alpha1"]
    );
}

#[test]
fn what_takes_any_field_lacks_none() {
    let served = bent(Kind::SsmSession, |definition| {
        let any = json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
        *at(definition, "/properties/spec") = any;
    });
    assert_eq!(lacking(&ours(Kind::SsmSession), &served), [""; 0]);
    assert_ne!(JSONSchemaProps::default(), root(&served), "it has a schema");
}

fn root(definition: &CustomResourceDefinition) -> JSONSchemaProps {
    let schema = definition.spec.versions[0].schema.clone();
    let schema = schema.and_then(|schema| schema.open_api_v3_schema);
    schema.expect("it has one")
}

#[test]
fn an_event_names_some_of_what_is_missing_and_how_much_else() {
    let lacks = ["a", "b", "c", "d", "e"].map(str::to_owned);
    let note = events::outdated(&lacks).note.expect("it says something");
    assert!(note.contains("a, b, c and 2 more is"), "{note}");
    let note = events::outdated(&lacks[..1])
        .note
        .expect("it says something");
    assert!(note.contains(": a is dropped"), "{note}");
    let long = [(); 3].map(|()| "x".repeat(300));
    let note = events::outdated(&long).note.expect("it says something");
    assert!(note.len() <= 1024);
}

/// An API server that serves definitions, or refuses to show them, and takes Events.
#[derive(Default)]
struct Served {
    definitions: Mutex<Vec<CustomResourceDefinition>>,
    events: Mutex<Vec<Value>>,
}

impl Served {
    fn serve(&self, definitions: Vec<CustomResourceDefinition>) {
        *self.definitions.lock().expect("no panic") = definitions;
    }

    fn reasons(&self) -> Vec<String> {
        let events = self.events.lock().expect("no panic");
        let what = |event: &Value| {
            let regarding = &event["regarding"];
            format!(
                "{} {} {}",
                event["reason"], regarding["namespace"], regarding["name"]
            )
        };
        events.iter().map(what).collect()
    }
}

async fn answer(
    State(served): State<Arc<Served>>,
    method: Method,
    uri: Uri,
    body: String,
) -> Response {
    if method == Method::POST && uri.path().ends_with("/namespaces/operator/events") {
        let event: Value = serde_json::from_str(&body).expect("an Event");
        let mut events = served.events.lock().unwrap_or_else(PoisonError::into_inner);
        events.push(event.clone());
        return Json(event).into_response();
    }
    let definitions = served
        .definitions
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    let name = uri.path().rsplit('/').next().unwrap_or_default();
    if let Some(found) = definitions.iter().find(|of| of.name_any() == name) {
        return Json(found).into_response();
    }
    let status = json!({ "kind": "Status", "status": "Failure", "reason": "Forbidden",
        "message": "forbidden", "code": 403 });
    (StatusCode::FORBIDDEN, Json(status)).into_response()
}

#[tokio::test]
async fn what_is_lacking_is_told_once_until_it_changes_and_is_unknown_where_it_may_not_be_read() {
    let socket = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
    let socket = socket.expect("loopback takes a server");
    let url = format!("http://{}", socket.local_addr().expect("it has one"));
    let served = Arc::new(Served::default());
    let routes = Router::new()
        .fallback(answer)
        .with_state(Arc::clone(&served));
    tokio::spawn(async move { axum::serve(socket, routes).await });
    let mut context = context(Arc::new(FakeAws::default()), relays(&[]));
    context.client = Client::try_from(Config::new(url.parse().expect("a URL"))).expect("a client");
    let api = Api::all(context.client.clone());
    let definition = definitions()
        .into_iter()
        .find(|of| of.kind == Kind::SsmSession);
    let mut definition = definition.expect("it is defined");
    let labels = KindLabel {
        kind: Kind::SsmSession,
    };
    let outdated = || Some(context.metrics.crd_outdated.get(&labels)?.get());

    let mut look = async || {
        let looked = look(&context, &api, &mut definition).await;
        (looked.is_ok(), outdated(), served.reasons().len())
    };
    assert_eq!(look().await, (false, None, 0));

    let old = |field: &str| {
        let status = "/properties/status/properties";
        bent(Kind::SsmSession, |definition| {
            remove(definition, status, field);
        })
    };
    served.serve(vec![old("nextRetryTime")]);
    assert_eq!(look().await, (true, Some(1), 1));
    assert_eq!(look().await, (true, Some(1), 1), "it was told");
    served.serve(vec![old("endpoint")]);
    assert_eq!(
        look().await,
        (true, Some(1), 2),
        "something else is lacking"
    );
    served.serve(vec![ours(Kind::SsmSession)]);
    assert_eq!(look().await, (true, Some(0), 2));
    served.serve(Vec::new());
    assert_eq!(look().await, (false, None, 2));

    let on = r#""CustomResourceDefinitionOutdated" "operator" "ssmsessions.ssm-operator.dev""#;
    assert_eq!(served.reasons(), [on, on]);
}
