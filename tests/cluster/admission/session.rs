//! The rules of `SsmSession`: its target, its reason, its first status.

use serde_json::{Value, json};
use ssm_session_operator::crd::SsmSession;

use super::{Rule, api, assert_rules, dry_run};
use crate::ground::ground;

pub(super) fn good() -> Value {
    json!({
        "apiVersion": "ssm-operator.dev/v1alpha1",
        "kind": "SsmSession",
        "metadata": { "name": "orders-db" },
        "spec": {
            "target": { "id": "i-0123456789abcdef0" },
            "ports": [{ "name": "postgres", "port": 5432, "remotePort": 5432 }],
            "reason": "read the orders",
        },
    })
}

fn target(field: &'static str, takes: Value, refuses: Value, says: &'static str) -> Rule {
    Rule::spec(
        field,
        json!({ "target": takes }),
        json!({ "target": refuses }),
        says,
    )
}

pub(super) async fn assert_session_rules(rules: Vec<Rule>) {
    let ground = ground().await;
    let client = ground.client().await;
    let namespace = ground.namespace(&client, "admission").await;
    assert_rules(&api::<SsmSession>(client, Some(&namespace)), &good(), rules).await;
}

#[tokio::test]
async fn a_session_names_one_target_that_ssm_could_know() {
    let ecs = |cluster: &str, task: &str, runtime: &str| json!({ "id": null, "ecsTask": { "cluster": cluster, "taskId": task, "runtimeId": runtime } });
    let task = "0123456789abcdef0123456789abcdef";
    let good_ecs = || ecs("shop_1-a", task, "0123456789abcdef-1234567890");
    assert_session_rules(vec![
        target(
            "spec.target",
            json!({}),
            json!({ "id": null }),
            "set exactly one of",
        ),
        target(
            "spec.target",
            good_ecs(),
            json!({ "ecsTask": { "cluster": "c", "taskId": "t", "runtimeId": "r" } }),
            "set exactly one of 'id' and 'ecsTask'",
        ),
        Rule::spec(
            "spec.target",
            json!({}),
            json!({ "target": null }),
            "Required value",
        ),
        target(
            "spec.target.id",
            json!({ "id": "mi-0123456789abcdef0" }),
            json!({ "id": "" }),
            "at least 1",
        ),
        target(
            "spec.target.id",
            json!({ "id": "ecs:shop_0123_0123-45" }),
            json!({ "id": "arn:aws:ec2:eu-central-1:1:instance/i-0" }),
            "use the id of an instance (i-...)",
        ),
        target(
            "spec.target.id",
            json!({ "id": format!("i-{}", "0".repeat(398)) }),
            json!({ "id": format!("i-{}", "0".repeat(399)) }),
            "may not be more than 400",
        ),
        target(
            "spec.target.ecsTask.cluster",
            good_ecs(),
            ecs("arn:aws:ecs:eu-central-1:1:cluster/shop", task, "1"),
            "use the name of the cluster, not its ARN",
        ),
        target(
            "spec.target.ecsTask.taskId",
            good_ecs(),
            ecs("shop", "task/shop/0123", "1"),
            "use the id of the task, not its ARN",
        ),
        target(
            "spec.target.ecsTask.runtimeId",
            good_ecs(),
            ecs("shop", task, "runtime id"),
            "use the container's runtimeId",
        ),
        target(
            "spec.target.ecsTask",
            ecs(&"c".repeat(255), &"t".repeat(64), &"r".repeat(75)),
            ecs(&"c".repeat(255), &"t".repeat(64), &"r".repeat(76)),
            "can have 400 characters at most",
        ),
    ])
    .await;
}

#[tokio::test]
async fn a_reason_is_one_line_that_can_not_pass_for_our_marker() {
    let reason = |text: String| json!({ "reason": text });
    let cases = [
        ("read", "", "at least 1 chars"),
        (
            "[ticket 7] / ünï",
            "one\ntwo",
            "write the reason in one line",
        ),
        ("a", "one\rtwo", "write the reason in one line"),
        ("a", "one\u{2028}two", "write the reason in one line"),
        (
            "ssm-operator",
            "x [ssm-operator abcdefgh/abcdefghijklmnopqrstuvwxyz]",
            "leave '[ssm-operator ' out",
        ),
    ];
    let mut rules: Vec<_> = cases
        .into_iter()
        .map(|(takes, refuses, says)| {
            Rule::spec(
                "spec.reason",
                reason(takes.into()),
                reason(refuses.into()),
                says,
            )
        })
        .collect();
    let at_most = "may not be more than 200";
    rules.push(Rule::spec(
        "spec.reason",
        reason("é".repeat(200)),
        reason("é".repeat(201)),
        at_most,
    ));
    rules.push(Rule::spec(
        "spec.reason",
        json!({}),
        json!({ "reason": null }),
        "Required value",
    ));
    assert_session_rules(rules).await;
}

#[tokio::test]
async fn a_new_session_says_that_nobody_has_seen_it_yet() {
    let ground = ground().await;
    let client = ground.client().await;
    let namespace = ground.namespace(&client, "admission").await;
    let api = api::<SsmSession>(client, Some(&namespace));
    let created = dry_run(&api, &good(), &json!({}))
        .await
        .expect("it is good");
    assert_eq!(created.data["status"], json!({ "observedGeneration": -1 }));
}
