//! The alert rules do what they promise: promtool runs their unit tests, and every alert has some.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Duration;

use serde_json::Value;
use ssm_session_operator::backoff::Backoff;
use ssm_session_operator::cli::{Cli, Command};

use crate::control_plane::promtool;
use crate::programs::{in_checkout, objects, render, run};

/// What stands for RUNBOOKS, until the chart is released.
const RUNBOOKS: &str =
    "https://github.com/ssm-operator/ssm-session-operator/blob/main/docs/troubleshooting.md";

/// The groups of rules, as the chart renders them.
async fn rules() -> Value {
    let rendered = render(&["--set=prometheusRule.enabled=true".to_owned()]).await;
    let mut objects = objects(&rendered.expect("it is rendered")).into_iter();
    let rules = objects.find(|object| object["kind"] == "PrometheusRule");
    let mut rules = rules.expect("it was asked for");
    rules["spec"].take()
}

fn unit_tests() -> String {
    let file = in_checkout("tests/chart/alerts.yaml");
    let tests = fs::read_to_string(file).expect("it is in the checkout");
    let tests = tests.replace("values: FAILURES", &format!("values: {}", failures()));
    tests.replace("RUNBOOKS", RUNBOOKS)
}

/// How many starts of one session have failed, minute by minute for three hours, by the back-off that relays have by default.
/// What is started and then given up for want of a handshake is the slowest to fail.
fn failures() -> String {
    let relay = [
        "--namespace=a",
        "--relay-name=b",
        "--advertise-address=192.0.2.1",
    ];
    let program = ["ssm-session-operator", "relay"];
    let cli = Cli::try_parse_checked(program.into_iter().chain(relay));
    let Ok(Command::Relay { common, relay }) = cli.map(|cli| cli.command) else {
        panic!("these are all that a relay needs");
    };
    let mut backoff = Backoff::new(common.backoff_min, common.backoff_max);
    let mut failed_at = vec![relay.handshake_timeout];
    let mut counts = Vec::new();
    for minute in 0..=180 {
        let now = Duration::from_mins(minute);
        while let Some(last) = failed_at.last().filter(|last| **last < now) {
            failed_at.push(*last + backoff.next_delay() + relay.handshake_timeout);
        }
        counts.push((failed_at.len() - 1).to_string());
    }
    counts.join(" ")
}

#[tokio::test]
async fn alerts_fire_when_they_should_and_only_then() {
    let promtool = promtool().await;
    let promtool = promtool.unwrap_or_else(|error| panic!("{error:#}"));
    let folder = std::env::temp_dir().join(format!("chart-alerts-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("the temporary folder takes a folder");
    let (rule_file, tests) = (folder.join("rules.yaml"), folder.join("alerts.yaml"));
    // JSON is YAML.
    fs::write(&rule_file, rules().await.to_string()).expect("it takes a file");
    fs::write(&tests, unit_tests()).expect("it takes a file");
    let (rule_file, tests) = (rule_file.display(), tests.display());
    let check = ["check", "rules", &rule_file.to_string()];
    let checked = run(&promtool, &check, "").await;
    let tested = run(&promtool, &["test", "rules", &tests.to_string()], "").await;
    fs::remove_dir_all(&folder).expect("it is ours");
    for ran in [checked, tested] {
        let said = ran.unwrap_or_else(|error| panic!("{error:#}")).out;
        assert!(said.contains("SUCCESS"), "{said}");
    }
}

#[tokio::test]
async fn of_each_alert_it_is_tested_when_it_fires_and_when_it_does_not() {
    let rules = rules().await;
    let rules = rules["groups"][0]["rules"].as_array();
    let alerts = rules.expect("a list").iter();
    let alerts: BTreeSet<_> = alerts.filter_map(|rule| rule["alert"].as_str()).collect();
    assert!(alerts.len() >= 10, "{alerts:?}");
    let tests = objects(&unit_tests()).remove(0);
    let mut tested: BTreeMap<&str, BTreeSet<bool>> = BTreeMap::new();
    let tests = tests["tests"].as_array().expect("a list");
    let evaluations = tests.iter().flat_map(|test| {
        let evaluations = test["alert_rule_test"].as_array();
        evaluations.expect("each test looks at alerts")
    });
    for evaluation in evaluations {
        let alert = evaluation["alertname"].as_str().expect("a name");
        let expected = evaluation["exp_alerts"].as_array().expect("a list");
        let fires = tested.entry(alert).or_default();
        fires.insert(!expected.is_empty());
    }
    let both = BTreeSet::from([false, true]);
    let wanted = alerts.into_iter().map(|alert| (alert, both.clone()));
    assert_eq!(tested, wanted.collect());
}

#[tokio::test]
async fn of_each_alert_the_page_about_troubleshooting_says_what_to_do() {
    let page = fs::read_to_string(in_checkout("docs/troubleshooting.md"));
    let page = page.expect("it is in the checkout");
    let section = page
        .split("\n## ")
        .find(|part| part.starts_with("Alerts\n"));
    let section = section.expect("it has the section");
    let rules = rules().await;
    for alert in rules["groups"][0]["rules"].as_array().expect("a list") {
        let (name, runbook) = (&alert["alert"], &alert["annotations"]["runbook_url"]);
        let name = name.as_str().expect("it has a name");
        assert!(
            section.contains(&format!("\n### {name}\n\n")),
            "{name} has no heading"
        );
        let anchor = name.to_lowercase();
        assert_eq!(*runbook, format!("{RUNBOOKS}#{anchor}"), "{name}");
    }
}
