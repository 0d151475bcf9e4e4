//! The rules of `SsmListener`: nobody but the controller writes it, and what it writes is held to the same limits.

use serde_json::{Value, json};
use ssm_session_operator::crd::SsmListener;

use super::{Rule, api, assert_rules};
use crate::ground::ground;

pub(super) fn good() -> Value {
    json!({
        "apiVersion": "ssm-operator.dev/v1alpha1",
        "kind": "SsmListener",
        "metadata": { "name": "admission" },
        "spec": {
            "sessionRef": { "namespace": "shop", "name": "orders-db", "uid": "0-1" },
            "relay": "relay-0",
            "port": "postgres",
            "replica": 0,
            "target": "i-0123456789abcdef0",
            "document": {
                "name": "AWS-StartPortForwardingSession",
                "parameters": { "portNumber": ["5432"] },
            },
            "reason": "read the orders",
            "identity": { "region": "eu-central-1" },
        },
    })
}

fn lost(count: usize) -> Value {
    let session = |i| json!({ "sessionId": format!("s-{i}"), "reason": "ClosedByService" });
    json!({ "lostSessions": (0..count).map(session).collect::<Vec<_>>() })
}

fn former(count: usize, region: &str) -> Value {
    json!({ "formerIdentities": vec![json!({ "region": region }); count] })
}

async fn assert_listener_rules(rules: Vec<Rule>) {
    let ground = ground().await;
    let client = ground.client().await;
    let namespace = ground.namespace(&client, "admission").await;
    assert_rules(
        &api::<SsmListener>(client, Some(&namespace)),
        &good(),
        rules,
    )
    .await;
}

#[tokio::test]
async fn a_listener_is_held_to_the_limits_of_a_session() {
    let one = |field: &str, value: Value| json!({ field: value });
    assert_listener_rules(vec![
        Rule::spec(
            "spec.target",
            one("target", json!("mi-0")),
            one("target", json!("db")),
            "use the id of an instance",
        ),
        Rule::spec(
            "spec.reason",
            one("reason", json!("a")),
            one("reason", json!("a\nb")),
            "in one line",
        ),
        Rule::spec(
            "spec.reason",
            one("reason", json!("a")),
            one("reason", json!("[ssm-operator a/b]")),
            "leave '[ssm-operator ' out",
        ),
        Rule::spec(
            "spec.port",
            one("port", json!("a")),
            one("port", json!("A")),
            "use lower-case letters",
        ),
        Rule::spec(
            "spec.replica",
            one("replica", json!(4)),
            one("replica", json!(5)),
            "less than or equal to 4",
        ),
        Rule::spec(
            "spec.relay",
            one("relay", Value::Null),
            one("relay", json!("Relay 0")),
            "use the name of an object",
        ),
        Rule::spec(
            "spec.identity.region",
            json!({}),
            json!({ "identity": { "region": "x" } }),
            "use the code of an AWS Region",
        ),
        Rule::spec(
            "spec.formerIdentities",
            former(4, "eu-central-1"),
            former(5, "eu-central-1"),
            "must have at most 4 items",
        ),
        Rule::spec(
            "spec.formerIdentities[0].region",
            former(1, "eu-central-1"),
            former(1, "x"),
            "use the code of an AWS Region",
        ),
        Rule::spec(
            "spec.lostSessions",
            lost(64),
            lost(65),
            "must have at most 64 items",
        ),
        Rule::spec(
            "spec.sessionRef.uid",
            json!({}),
            json!({ "sessionRef": { "uid": null } }),
            "Required value",
        ),
    ])
    .await;
}

#[tokio::test]
async fn a_document_is_one_that_start_session_takes() {
    let document = |name: &str| json!({ "document": { "name": name } });
    let parameters = |parameters: Value| json!({ "document": { "parameters": parameters } });
    let of_parameters = "spec.document.parameters";
    assert_listener_rules(vec![
        Rule::spec(
            "spec.document.name",
            document("arn:aws:ssm:eu-central-1:1:document/A_b.c"),
            document("a b c"),
            "use the name or ARN",
        ),
        Rule::spec(
            "spec.document.name",
            document(&"d".repeat(128)),
            document(&"d".repeat(129)),
            "more than 128",
        ),
        Rule::spec(
            "spec.document.name",
            document("doc"),
            document("do"),
            "at least 3 chars",
        ),
        Rule::spec(
            of_parameters,
            parameters(json!({ "host": ["db"] })),
            parameters(json!({ "": ["db"] })),
            "use keys of 1 to 255",
        ),
        Rule::spec(
            of_parameters,
            parameters(json!({ "host": ["d".repeat(65_535)] })),
            parameters(json!({ "host": ["d".repeat(65_536)] })),
            "more than 65535",
        ),
        Rule::spec(
            of_parameters,
            parameters(json!({ "host": ["d"] })),
            parameters(json!({ "host": [""] })),
            "at least 1 chars",
        ),
    ])
    .await;
}
