//! What helm renders is accepted, and what must not be rendered is refused with words that help.

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;

use crate::ground::ground;
use crate::programs::{chart, in_checkout, objects, render, run, tools, ways};

#[tokio::test]
async fn helm_has_nothing_to_object_to() {
    let chart = chart();
    for way in ways() {
        let mut arguments = vec!["lint", "--strict", &chart];
        arguments.extend(way.iter().map(String::as_str));
        let linted = run(&tools().await.helm, &arguments, "").await;
        let said = linted.unwrap_or_else(|error| panic!("{error:#}")).out;
        assert!(
            said.contains("1 chart(s) linted, 0 chart(s) failed"),
            "{said}"
        );
    }
}

#[tokio::test]
async fn the_api_server_takes_every_object_and_knows_all_of_its_fields() {
    let ground = ground().await;
    for way in ways() {
        let manifest = render(&way).await.expect("it is rendered");
        ground.assert_taken(&format!("{way:?}"), &manifest).await;
    }
}

#[tokio::test]
async fn values_that_do_not_fit_are_refused_with_words_that_help() {
    let table = fs::read_to_string(in_checkout("tests/chart/bad-values.txt"));
    let table = table.expect("it is in the checkout");
    let rows = table.lines().filter(|line| !line.starts_with('#'));
    let rows: Vec<_> = rows.filter_map(|line| line.split_once(" => ")).collect();
    assert!(rows.len() >= 20, "{} rows were read", rows.len());
    for (bad, words) in rows {
        let refused = render(&["--set-json".to_owned(), bad.to_owned()]).await;
        let said = match refused {
            Ok(_) => panic!("{bad} is rendered"),
            Err(error) => error.to_string(),
        };
        assert!(said.contains(words), "{bad}: {said}");
        for wordless in ["does not match pattern", "false schema"] {
            assert!(!said.contains(wordless), "{bad}: {said}");
        }
    }
}

/// What needs the Prometheus operator, or is read by Grafana, is there for who asks for it.
#[tokio::test]
async fn by_default_nothing_is_rendered_for_monitoring() {
    let rendered = objects(&render(&[]).await.expect("it is rendered"));
    let kinds = rendered.iter().filter_map(|object| object["kind"].as_str());
    let kinds: BTreeSet<_> = kinds.collect();
    let expected = [
        "ClusterRole",
        "ClusterRoleBinding",
        "CustomResourceDefinition",
        "Deployment",
        "Job",
        "NetworkPolicy",
        "PodDisruptionBudget",
        "Role",
        "RoleBinding",
        "ServiceAccount",
        "ValidatingAdmissionPolicy",
        "ValidatingAdmissionPolicyBinding",
    ];
    assert_eq!(kinds, BTreeSet::from(expected));
}

#[tokio::test]
async fn every_pod_asks_dns_where_it_listens() {
    for (openshift, ports) in [(false, vec![53, 53]), (true, vec![53, 53, 5353, 5353])] {
        let option = format!("--set=openshift={openshift}");
        let objects = objects(&render(&[option]).await.expect("it is rendered"));
        let policies = objects
            .iter()
            .filter(|object| object["kind"] == "NetworkPolicy");
        let rules = policies.filter_map(|policy| policy["spec"]["egress"][0]["ports"].as_array());
        let opened: Vec<Vec<_>> = rules
            .map(|ports| ports.iter().map(|port| port["port"].clone()).collect())
            .collect();
        assert_eq!(opened, vec![ports; 3], "controller, relay and drain");
    }
}

#[tokio::test]
async fn the_kinds_are_rendered_as_they_are_in_crds() {
    let rendered = objects(&render(&[]).await.expect("it is rendered"));
    let mut kinds: Vec<_> = rendered
        .into_iter()
        .filter(|object| object["kind"] == "CustomResourceDefinition")
        .map(without_what_helm_adds)
        .collect();
    let mut committed = Vec::new();
    for file in fs::read_dir(in_checkout("crds")).expect("it is in the checkout") {
        let file = file.expect("it can be listed").path();
        committed.extend(objects(&fs::read_to_string(file).expect("it is text")));
    }
    let name = |kind: &Value| kind["metadata"]["name"].to_string();
    kinds.sort_by_key(name);
    committed.sort_by_key(name);
    assert_eq!(kinds, committed);
}

fn without_what_helm_adds(mut kind: Value) -> Value {
    let metadata = kind["metadata"].as_object_mut().expect("it has metadata");
    metadata.remove("labels").expect("those of the release");
    let annotations = metadata
        .remove("annotations")
        .expect("crds.keep is the default");
    assert_eq!(annotations["helm.sh/resource-policy"], "keep");
    kind
}
