//! Alerts and dashboard ask for metrics that there are, and promtool has nothing to say about these.

use std::collections::BTreeSet;

use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use serde_json::Value;
use ssm_session_operator::binding::BindingMetrics;
use ssm_session_operator::controller::metrics::{
    DefinitionLabels, Kind, Metrics, Outcome, PollLabels, ReconcileLabels, ScopeLabels, WatchLabels,
};
use ssm_session_operator::relay;

use crate::control_plane::promtool;
use crate::programs::{finish, objects, render, ways};

/// What all names of ours begin with.
const PREFIX: &str = "ssm_operator_";

/// What the processes serve, each metric with a series.
fn text() -> String {
    let mut registry = Registry::default();
    relay::Metrics::default().register(&mut registry);
    let _ = BindingMetrics::register(&mut registry);
    // What has no series is not served, so each gets one. Whoever adds a metric is made to look here.
    let Metrics {
        reconciles,
        watch_errors,
        poll_errors,
        poll_timestamp,
        leading: _,
        synced: _,
        scope_synced,
        swept: _,
        relays_alive: _,
        listeners_unbound: _,
        crd_outdated,
    } = Metrics::register(&mut registry);
    let kind = Kind::SsmSession;
    let outcome = Outcome::Failure;
    reconciles
        .get_or_create(&ReconcileLabels { kind, outcome })
        .inc();
    watch_errors.get_or_create(&WatchLabels { kind }).inc();
    crd_outdated
        .get_or_create(&DefinitionLabels { kind })
        .set(1);
    let region = PollLabels {
        region: "eu-central-1".to_owned(),
    };
    scope_synced
        .get_or_create(&ScopeLabels {
            scope: "shop".to_owned(),
        })
        .set(1);
    poll_errors.get_or_create(&region).inc();
    poll_timestamp.get_or_create(&region).set(1);

    let mut text = String::new();
    encode(&mut text, &registry).expect("a string takes everything");
    text
}

/// The names under which Prometheus knows what the processes serve.
fn served() -> BTreeSet<String> {
    let text = text();
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    samples
        .filter_map(|sample| sample.split(['{', ' ']).next())
        .map(str::to_owned)
        .collect()
}

/// The names of ours in an expression.
fn asked(expression: &str) -> BTreeSet<String> {
    expression
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| word.starts_with(PREFIX))
        .map(str::to_owned)
        .collect()
}

/// All expressions of a tree: the strings under `expr`.
fn expressions<'a>(tree: &'a Value, found: &mut Vec<&'a str>) {
    match tree {
        Value::Object(parts) => {
            found.extend(parts.get("expr").and_then(Value::as_str));
            parts.values().for_each(|part| expressions(part, found));
        }
        Value::Array(parts) => parts.iter().for_each(|part| expressions(part, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[tokio::test]
async fn alerts_and_dashboard_ask_for_metrics_that_are_served() {
    let everything = ways().into_iter().find(|way| {
        let mut options = way.iter();
        options.any(|option| option.ends_with("everything.yaml"))
    });
    let manifest = render(&everything.expect("it is in values/")).await;
    let rendered = objects(&manifest.expect("it is rendered"));
    let of_kind = |kind: &str, name: &str| {
        let mut objects = rendered.iter();
        let object = objects.find(|object| {
            object["kind"] == kind && object["metadata"]["name"].as_str() == Some(name)
        });
        object.unwrap_or_else(|| panic!("no {kind} {name} is rendered"))
    };
    let rules = of_kind("PrometheusRule", "everything");
    let dashboard = of_kind("ConfigMap", "everything-dashboard");
    let dashboard = dashboard["data"]["ssm-session-operator.json"].as_str();
    let dashboard: Value = serde_json::from_str(dashboard.expect("it has one")).expect("JSON");

    let served = served();
    for (what, tree, expressions_min) in [("alerts", rules, 10), ("dashboard", &dashboard, 15)] {
        let mut found = Vec::new();
        expressions(tree, &mut found);
        assert!(found.len() >= expressions_min, "{what}: {found:?}");
        for expression in found {
            let asked = asked(expression);
            assert!(
                !asked.is_empty(),
                "{what}: {expression} asks for nothing of ours"
            );
            let missing: Vec<_> = asked.difference(&served).collect();
            assert!(
                missing.is_empty(),
                "{what}: nobody serves {missing:?}; there are {served:#?}"
            );
        }
    }
}

/// OpenMetrics in the older words that promtool reads: there a counter's family has the ending of its samples.
fn in_older_words(text: &str) -> String {
    let counters: BTreeSet<_> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter"))
        .collect();
    let line = |line: &str| {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some(what @ ("HELP" | "TYPE")), Some(name), Some(rest)) => {
                let ending = if counters.contains(name) {
                    "_total"
                } else {
                    ""
                };
                Some(format!("# {what} {name}{ending} {rest}\n"))
            }
            (Some("#"), ..) => None,
            _ => Some(format!("{line}\n")),
        }
    };
    text.lines().filter_map(line).collect()
}

#[tokio::test]
async fn promtool_has_nothing_to_object_to_in_metrics() {
    let promtool = promtool().await;
    let promtool = promtool.unwrap_or_else(|error| panic!("{error:#}"));
    let check = ["check", "metrics"];
    let metrics = in_older_words(&text());
    let (status, said) = finish(&promtool, &check, &metrics).await.expect("it runs");
    let said = said.out + &said.err;
    assert!(status.success() && said.is_empty(), "{said}");

    let named_badly = "# HELP calls Calls\n# TYPE calls counter\ncalls 1\n";
    let (status, _) = finish(&promtool, &check, named_badly)
        .await
        .expect("it runs");
    assert!(
        !status.success(),
        "it says nothing of a counter without its ending"
    );
}

#[test]
fn names_are_read_from_expressions_and_from_what_is_served() {
    let expression = "sum(increase(ssm_operator_a_total{x=\"y\"}[1h])) > max(ssm_operator_b)";
    let names = ["ssm_operator_a_total", "ssm_operator_b"].map(str::to_owned);
    assert_eq!(asked(expression), BTreeSet::from(names));
    assert!(served().contains("ssm_operator_controller_reconciles_total"));
}
