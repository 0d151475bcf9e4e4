//! The rules of `SsmSessionClass`.

use anyhow::Result;
use kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use ssm_session_operator::crd::{
    DEFAULT_CLASS_ANNOTATION, DEFAULT_CONTROLLER_NAME, SsmSessionClass,
};

use super::{Rule, api, assert_rules, dry_run, merge};
use crate::ground::ground;

fn good() -> Value {
    json!({
        "apiVersion": "ssm-operator.dev/v1alpha1",
        "kind": "SsmSessionClass",
        "metadata": { "name": "admission" },
        "spec": { "aws": { "region": "eu-central-1" } },
    })
}

#[tokio::test]
async fn a_class_names_a_region_and_a_controller() {
    let region = |region: &str| json!({ "aws": { "region": region } });
    let controller = |name: &str| json!({ "controllerName": name });
    let ground = ground().await;
    let rules = vec![
        Rule::spec(
            "spec.aws",
            json!({}),
            json!({ "aws": null }),
            "Required value",
        ),
        Rule::spec(
            "spec.aws.region",
            json!({}),
            json!({ "aws": { "region": null } }),
            "Required value",
        ),
        Rule::spec(
            "spec.aws.region",
            region("us-gov-west-1"),
            region("Frankfurt"),
            "use the code of an AWS Region",
        ),
        Rule::spec(
            "spec.aws.region",
            region("cn-north-1"),
            region("eu-central-1a"),
            "use the code of an AWS Region",
        ),
        Rule::spec(
            "spec.controllerName",
            controller("example.com/a/b_c"),
            controller("example.com"),
            "use a domain and a path",
        ),
        Rule::spec(
            "spec.controllerName",
            controller("a/b"),
            controller(""),
            "at least 1 chars",
        ),
    ];
    assert_rules(
        &api::<SsmSessionClass>(ground.client().await, None),
        &good(),
        rules,
    )
    .await;
}

#[tokio::test]
async fn an_endpoint_has_one_spelling_and_no_place_for_a_secret() {
    let ground = ground().await;
    let cases = [
        ("https://ssm.example.com", "https://ssm.example.com/"),
        ("https://ssm.example.com:8443", "https://ssm.example.com/v1"),
        ("https://10.0.0.1", "https://user:secret@ssm.example.com"),
        ("https://[fd00::1]:8443", "https://ssm.example.com?a=b"),
        ("http://127.0.0.1:8080", "http://ssm.example.com"),
        ("http://localhost:8080", "http://localhost.example.com:8080"),
        ("http://[::1]:8080", "http://127.0.0.1.example.com"),
        ("https://a:65535", "https://a:65536"),
        ("https://a:1", "https://a:0"),
        ("https://a-b.c", "https://A.example.com"),
        ("https://a.b", "https://a..b"),
        ("https://a", "wss://a"),
        ("https://a", "ssm.example.com"),
    ];
    let mut rules = Vec::new();
    for (takes, refuses) in cases {
        for (field, key) in [
            ("spec.aws.endpoints.ssm", "ssm"),
            ("spec.aws.endpoints.ssmmessages", "ssmmessages"),
        ] {
            let endpoint = |url: &str| json!({ "aws": { "endpoints": { key: url } } });
            rules.push(Rule::spec(
                field,
                endpoint(takes),
                endpoint(refuses),
                "write https://host",
            ));
        }
    }
    assert_rules(
        &api::<SsmSessionClass>(ground.client().await, None),
        &good(),
        rules,
    )
    .await;
}

#[tokio::test]
async fn a_role_is_named_as_aws_names_it_and_what_belongs_to_it_only_with_it() {
    let ground = ground().await;
    let role = "arn:aws:iam::123456789012:role/sessions";
    let arn = |arn: &str| json!({ "aws": { "roleArn": arn } });
    let with = |field: &str, value: &str| json!({ "aws": { "roleArn": role, field: value } });
    let without = |field: &str, value: &str| json!({ "aws": { field: value } });
    let mut rules = Vec::new();
    let longest = format!("arn:aws-us-gov:iam::123456789012:role/{}", "a".repeat(64));
    let longer = format!("{longest}a");
    for (takes, refuses) in [
        (role, "sessions"),
        (
            "arn:aws:iam::123456789012:role/teams/a+b=c,d.e@f_g-h",
            "arn:aws:iam::123456789012:role/teams/",
        ),
        (
            "arn:aws-cn:iam::123456789012:role/a",
            "arn:aws:sts::123456789012:assumed-role/sessions/name",
        ),
        (
            "arn:aws-iso-b:iam::123456789012:role/a",
            "arn:aws:iam::1234:role/sessions",
        ),
        (longest.as_str(), longer.as_str()),
        (role, "arn:aws:iam::123456789012:user/sessions"),
        (role, "arn:aws:iam::123456789012:role/a b"),
    ] {
        let says = "use the ARN of an IAM role";
        rules.push(Rule::spec(
            "spec.aws.roleArn",
            arn(takes),
            arn(refuses),
            says,
        ));
    }
    let (external_id, session_name) = ("spec.aws.externalId", "spec.aws.sessionName");
    for (field, key, takes, refuses, says) in [
        (
            external_id,
            "externalId",
            "a/b:c=1",
            "a b",
            "use an external id of",
        ),
        (external_id, "externalId", "ab", "a", "at least 2 chars"),
        (
            session_name,
            "sessionName",
            "a+b=c,d.e@f_g-h",
            "a/b",
            "use a role session name of",
        ),
        (session_name, "sessionName", "ab", "a", "at least 2 chars"),
    ] {
        rules.push(Rule::spec(
            field,
            with(key, takes),
            with(key, refuses),
            says,
        ));
    }
    for (key, says) in [
        (
            "externalId",
            "name the role in roleArn, or leave externalId out",
        ),
        (
            "sessionName",
            "name the role in roleArn, or leave sessionName out",
        ),
    ] {
        rules.push(Rule::spec(
            "spec.aws",
            with(key, "ab"),
            without(key, "ab"),
            says,
        ));
    }
    let long = |length: usize| with("sessionName", &"a".repeat(length));
    let says = "may not be more than 64";
    rules.push(Rule::spec("spec.aws.sessionName", long(64), long(65), says));
    assert_rules(
        &api::<SsmSessionClass>(ground.client().await, None),
        &good(),
        rules,
    )
    .await;
}

#[tokio::test]
async fn a_class_without_a_controller_is_for_the_default_one() {
    let ground = ground().await;
    let api = api::<SsmSessionClass>(ground.client().await, None);
    let created = dry_run(&api, &good(), &json!({}))
        .await
        .expect("it is good");
    assert_eq!(
        created.data["spec"]["controllerName"],
        DEFAULT_CONTROLLER_NAME
    );
}

#[tokio::test]
async fn kubectl_shows_controller_region_and_default() -> Result<()> {
    let ground = ground().await;
    let mut class = good();
    // Served by nobody: a default class of the installation under test would be in its way.
    merge(
        &mut class,
        &json!({
            "metadata": { "name": "shown", "annotations": { DEFAULT_CLASS_ANNOTATION: "true" } },
            "spec": { "controllerName": "example.com/nobody" },
        }),
    );
    let class: DynamicObject = serde_json::from_value(class)?;
    let api = api::<SsmSessionClass>(ground.client().await, None);
    api.create(&PostParams::default(), &class).await?;
    let shown = ground.kubectl(&["get", "ssmc", "shown"]).await?;
    let words: Vec<_> = shown.split_whitespace().collect();
    assert_eq!(
        words[..5],
        ["NAME", "CONTROLLER", "REGION", "DEFAULT", "AGE"]
    );
    assert_eq!(
        words[5..9],
        ["shown", "example.com/nobody", "eu-central-1", "true"]
    );
    Ok(())
}

#[tokio::test]
async fn a_class_stays_with_its_controller() -> Result<()> {
    let ground = ground().await;
    let api = api::<SsmSessionClass>(ground.client().await, None);
    let mut class = good();
    let named =
        json!({ "metadata": { "name": "stays" }, "spec": { "controllerName": "example.com/a" } });
    merge(&mut class, &named);
    let class: DynamicObject = serde_json::from_value(class)?;
    api.create(&PostParams::default(), &class).await?;
    let edit = |spec: Value| Patch::Merge(json!({ "spec": spec }));
    let parameters = PatchParams::default();
    let region = edit(json!({ "aws": { "region": "eu-west-1" } }));
    api.patch("stays", &parameters, &region).await?;
    let other = edit(json!({ "controllerName": "example.com/b" }));
    let refused = api.patch("stays", &parameters, &other).await;
    let message = refused.expect_err("it is refused").to_string();
    assert!(message.contains("make another class"), "{message}");
    Ok(())
}
