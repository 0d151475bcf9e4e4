//! Alerts and dashboard ask for metrics that there are, by labels that these have, and promtool has nothing to say about
//! the metrics.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::control_plane::promtool;
use crate::programs::{finish, objects, render, ways};
use crate::served::{self, OPEN};

/// What all names of ours begin with.
const PREFIX: &str = "ssm_operator_";

/// What Prometheus adds to each series, and the chart's ServiceMonitor leaves as it is.
const OF_TARGETS: [&str; 2] = ["namespace", "pod"];

/// The labels of a metric, with the values that are served.
type Labels<'a> = BTreeMap<&'a str, BTreeSet<&'a str>>;

/// What the processes serve: each name, as Prometheus knows it, with its labels.
fn served(text: &str) -> BTreeMap<&str, Labels<'_>> {
    let mut served: BTreeMap<&str, Labels<'_>> = BTreeMap::new();
    for sample in text.lines().filter(|line| !line.starts_with('#')) {
        let (sample, _) = sample.rsplit_once(' ').expect("a sample has a value");
        let (name, labels) = sample.split_once('{').unwrap_or((sample, ""));
        let known = served.entry(name).or_default();
        for (label, _, value) in matchers(labels.trim_end_matches('}')) {
            known.entry(label).or_default().insert(value);
        }
    }
    served
}

/// Label, operator and value of each matcher between braces.
fn matchers(braced: &str) -> Vec<(&str, &str, &str)> {
    let one = |matcher| {
        let matcher: &str = matcher;
        let (label, rest) = matcher.split_at(matcher.find(['=', '!'])?);
        let (operator, value) = rest.split_at(rest.find('"')?);
        Some((label.trim(), operator, value.trim_matches('"')))
    };
    braced.split_terminator(',').filter_map(one).collect()
}

/// The metrics of ours in an expression, each with what stands between its braces.
fn asked(expression: &str) -> Vec<(&str, &str)> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut asked = Vec::new();
    let mut rest = expression;
    while let Some(at) = rest.find(PREFIX) {
        let found = &rest[at..];
        let end = found.find(|c| !is_word(c)).unwrap_or(found.len());
        let (name, behind) = found.split_at(end);
        let braced = behind.strip_prefix('{');
        let braced = braced.and_then(|braced| braced.split_once('}'));
        asked.push((name, braced.map_or("", |(braced, _)| braced)));
        rest = behind;
    }
    asked
}

/// Each `by (…)` of an expression: its labels, and what it aggregates.
fn groups(expression: &str) -> Vec<(Vec<&str>, &str)> {
    let behind = expression
        .match_indices("by (")
        .map(|(at, by)| &expression[at + by.len()..]);
    let group = |behind| {
        let behind: &str = behind;
        let (labels, aggregated) = behind.split_once(')').expect("closed");
        let mut depth = 0;
        let aggregated = aggregated.split_inclusive(|c| {
            depth += i32::from(c == '(') - i32::from(c == ')');
            c == ')' && depth == 0
        });
        let aggregated = aggregated.into_iter().next().expect("there is something");
        (labels.split(',').map(str::trim).collect(), aggregated)
    };
    behind.map(group).collect()
}

/// The labels of which a text in a rule or a panel makes words: `{{ $labels.kind }}`, `{{kind}}`.
fn worded(text: &str) -> Vec<&str> {
    let words = text.split("{{").skip(1);
    let words = words.filter_map(|word| Some(word.split_once("}}")?.0.trim()));
    let words = words.filter(|word| !word.contains("$value"));
    words
        .map(|word| word.trim_start_matches("$labels."))
        .collect()
}

/// Each object of a tree that has an expression, and the expression.
fn askers<'a>(tree: &'a Value, found: &mut Vec<(&'a Value, &'a str)>) {
    match tree {
        Value::Object(parts) => {
            let expression = parts.get("expr").and_then(Value::as_str);
            found.extend(expression.map(|expression| (tree, expression)));
            parts.values().for_each(|part| askers(part, found));
        }
        Value::Array(parts) => parts.iter().for_each(|part| askers(part, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The words of an alert or a panel that are made of labels.
fn templates(asker: &Value) -> Vec<&str> {
    let annotations = asker["annotations"].as_object();
    let annotations = annotations.into_iter().flat_map(serde_json::Map::values);
    let legend = asker.get("legendFormat");
    annotations
        .chain(legend)
        .filter_map(Value::as_str)
        .collect()
}

/// What is wrong with an expression, if anything is.
fn objection(
    expression: &str,
    words: &[&str],
    served: &BTreeMap<&str, Labels<'_>>,
) -> Option<String> {
    let asked_for = asked(expression);
    if asked_for.is_empty() {
        return Some("it asks for nothing of ours".to_owned());
    }
    for (name, braced) in asked_for {
        let Some(labels) = served.get(name) else {
            return Some(format!("nobody serves {name}"));
        };
        for (label, operator, value) in matchers(braced) {
            if OF_TARGETS.contains(&label) {
                continue;
            }
            let Some(values) = labels.get(label) else {
                return Some(format!("{name} has no label {label}"));
            };
            let wanted = value.split('|').filter(|_| !values.contains(OPEN));
            let mut unknown = wanted.filter(|value| !values.contains(value));
            if let Some(unknown) = unknown.next() {
                return Some(format!("{name}{{{label}{operator}…}} is never {unknown}"));
            }
        }
    }
    let groups = groups(expression);
    for (by, aggregated) in &groups {
        for (name, _) in asked(aggregated) {
            let labels = &served[name];
            let has = |label: &&&str| OF_TARGETS.contains(*label) || labels.contains_key(**label);
            if let Some(label) = by.iter().find(|label| !has(label)) {
                return Some(format!("{name} has no label {label} to group by"));
            }
        }
    }
    let kept: BTreeSet<_> = groups.iter().flat_map(|(by, _)| by).collect();
    let mut worded = words.iter().flat_map(|text| worded(text));
    let lost = worded.find(|label| !kept.contains(label));
    lost.map(|label| format!("its words have {label}, which it does not group by"))
}

#[tokio::test]
async fn alerts_and_dashboard_ask_for_metrics_and_labels_that_are_served() {
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

    let text = served::text();
    let served = served(&text);
    for (what, tree, expressions_min) in [("alerts", rules, 15), ("dashboard", &dashboard, 30)] {
        let mut found = Vec::new();
        askers(tree, &mut found);
        assert!(found.len() >= expressions_min, "{what}: {found:?}");
        for (asker, expression) in found {
            let objection = objection(expression, &templates(asker), &served);
            assert_eq!(objection, None, "{what}: {expression}");
        }
    }
    for variable in dashboard["templating"]["list"].as_array().expect("a list") {
        let query = variable["query"].as_str().expect("a query");
        for (name, _) in asked(query) {
            assert!(served.contains_key(name), "nobody serves {name}: {query}");
        }
    }
}

/// OpenMetrics in the older words that promtool reads: there the family of a counter, and of what is said about a
/// process, has the ending of its samples, and the latter is a gauge.
fn in_older_words(text: &str) -> String {
    let endings: BTreeMap<_, _> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.rsplit_once(' '))
        .filter_map(|(name, kind)| match kind {
            "counter" => Some((name, "_total")),
            "info" => Some((name, "_info")),
            _ => None,
        })
        .collect();
    let line = |line: &str| {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some(what @ ("HELP" | "TYPE")), Some(name), Some(rest)) => {
                let ending = endings.get(name).copied().unwrap_or_default();
                let rest = if (what, rest) == ("TYPE", "info") {
                    "gauge"
                } else {
                    rest
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
    let metrics = in_older_words(&served::text());
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
fn what_nobody_serves_is_objected_to() {
    let text = "ssm_operator_a_total{x=\"y\",open=\"…\"} 1\nssm_operator_b 2\n";
    let served = served(text);
    let says = |expression: &str, words: &str| {
        objection(expression, &[words], &served).unwrap_or_default()
    };
    let good = "sum by (x, pod) (increase(ssm_operator_a_total{x=\"y\",open=\"any\"}[1h])) > max(ssm_operator_b)";
    assert_eq!(
        says(good, "{{ $value }} of {{ $labels.x }} and {{pod}}"),
        ""
    );
    for (bad, words, objection) in [
        ("time()", "", "it asks for nothing of ours"),
        ("ssm_operator_c", "", "nobody serves ssm_operator_c"),
        (
            "ssm_operator_b{x=\"y\"}",
            "",
            "ssm_operator_b has no label x",
        ),
        (
            "ssm_operator_a_total{x=~\"y|z\"}",
            "",
            "ssm_operator_a_total{x=~…} is never z",
        ),
        (
            "sum by (x) (ssm_operator_a_total) + sum by (x) (rate(ssm_operator_b[1h]))",
            "",
            "ssm_operator_b has no label x to group by",
        ),
        (
            "sum by (x) (ssm_operator_a_total)",
            "{{open}}",
            "its words have open, which it does not group by",
        ),
    ] {
        assert_eq!(says(bad, words), objection, "{bad}");
    }
}
