//! Names and labels: releases do not take each other's objects, and what a user adds is said once.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::programs::{objects, render};

/// As long as the API server takes them.
const NAME_MAX: usize = 253;

/// Kind, namespace and name of what a release in this namespace has outside of it, but for the kinds, which belong to one.
async fn outside(namespace: &str, more: &[&str]) -> BTreeSet<[String; 3]> {
    let mut options = vec![
        format!("--namespace={namespace}"),
        "--set=crds.enabled=false".to_owned(),
        "--set=watchNamespaces={shop}".to_owned(),
    ];
    options.extend(more.iter().map(|option| (*option).to_owned()));
    let objects = objects(&render(&options).await.expect("it is rendered"));
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let all = objects.iter().map(|object| {
        let metadata = &object["metadata"];
        [&object["kind"], &metadata["namespace"], &metadata["name"]].map(text)
    });
    let outside: BTreeSet<_> = all.filter(|[_, at, _]| at != namespace).collect();
    assert!(outside.len() >= 15, "{outside:#?}");
    for [kind, _, name] in &outside {
        assert!(name.len() <= NAME_MAX, "{kind} {name}");
    }
    outside
}

#[tokio::test]
async fn releases_of_one_name_live_side_by_side() {
    let name = "--set=fullnameOverride=sessions";
    // Of names that differ at their ends only, each is whole.
    let (long, longer) = ("a".repeat(62), "a".repeat(63));
    let long_name = format!("--set=fullnameOverride={}", "b".repeat(40));
    for (one, other, of_one, of_other) in [
        ("ops", "dev", name, name),
        (
            "a",
            "a-b",
            "--set=fullnameOverride=b-c",
            "--set=fullnameOverride=c",
        ),
        (&long, &longer, &long_name, &long_name),
    ] {
        let (one, other) = (
            outside(one, &[of_one]).await,
            outside(other, &[of_other]).await,
        );
        let both: Vec<_> = one.intersection(&other).collect();
        assert!(both.is_empty(), "{both:#?}");
    }
}

#[tokio::test]
async fn roles_and_policies_are_bound_by_the_names_that_they_have() {
    for way in crate::programs::ways() {
        let objects = objects(&render(&way).await.expect("it is rendered"));
        let named = |kind: &Value, name: &Value, at: &Value| {
            let mut all = objects.iter();
            all.any(|object| {
                let of = &object["metadata"];
                object["kind"] == *kind && of["name"] == *name && of["namespace"] == *at
            })
        };
        let mut bindings = 0;
        for object in &objects {
            let (reference, at) = (&object["roleRef"], &object["metadata"]["namespace"]);
            if reference.is_object() {
                assert!(
                    named(&reference["kind"], &reference["name"], at),
                    "{object:#}"
                );
                bindings += 1;
            }
            if object["kind"] == "ValidatingAdmissionPolicyBinding" {
                let policy = "ValidatingAdmissionPolicy".into();
                assert!(
                    named(&policy, &object["spec"]["policyName"], at),
                    "{object:#}"
                );
                bindings += 1;
            }
        }
        assert!(bindings >= 7, "{way:?}: {bindings}");
    }
}

/// A key that is there twice is an error to whoever reads the YAML here, and to few others.
#[tokio::test]
async fn a_label_of_one_kind_of_object_goes_before_the_same_of_all() {
    let values = [
        r#"commonLabels={"team":"all","tier":"all"}"#,
        r#"relay.podLabels={"team":"relays"}"#,
        r#"serviceMonitor={"enabled":true,"labels":{"team":"monitors"}}"#,
        r#"prometheusRule={"enabled":true,"labels":{"team":"rules"}}"#,
        r#"dashboard={"enabled":true,"labels":{"team":"dashboards"}}"#,
    ];
    let options = values.map(|value| format!("--set-json={value}"));
    let objects = objects(&render(&options).await.expect("it is rendered"));
    let mut labels: Vec<_> = objects
        .iter()
        .filter(|object| object["kind"] != "Deployment")
        .map(|object| (&object["kind"], &object["metadata"]["labels"]))
        .collect();
    let relay = objects.iter().find(|object| {
        let selector = &object["spec"]["selector"]["matchLabels"];
        object["kind"] == "Deployment" && selector["app.kubernetes.io/component"] == "relay"
    });
    let relay = &relay.expect("it is there")["spec"]["template"]["metadata"]["labels"];
    let pods = Value::from("pods of relays");
    labels.push((&pods, relay));
    for (kind, team) in [
        ("pods of relays", "relays"),
        ("ServiceMonitor", "monitors"),
        ("PrometheusRule", "rules"),
        ("ConfigMap", "dashboards"),
        ("ServiceAccount", "all"),
    ] {
        let mut of_kind = labels.iter().filter(|(of, _)| *of == kind).peekable();
        assert!(of_kind.peek().is_some(), "there is no {kind}");
        for (_, labels) in of_kind {
            assert_eq!(labels["team"], team, "{kind}");
            assert_eq!(labels["tier"], "all", "{kind}");
        }
    }
}
