//! No value is inert: each one, changed alone, changes what is rendered.

use std::collections::{BTreeMap, BTreeSet};

use futures::StreamExt as _;
use serde_json::{Value, json};

use crate::programs::{in_checkout, render};
use crate::values::{paths_of_values, yaml};

/// Renders at once: a machine of two cores is busy with these.
const AT_ONCE: usize = 4;

/// Values that `everything.yaml` leaves as they are by default, or that count only beside others: what each is changed to,
/// and those others, which are the same before and after. All others are changed back to their default.
const OTHERWISE: [(&str, &str, &[&str]); 26] = [
    ("mode", r#""all-in-one""#, &[]),
    ("watchNamespaces", r#"["shop"]"#, &[]),
    ("image.tag", r#""v2""#, &[r#"image.digest="""#]),
    ("customCA.secret", r#""ca""#, &[r#"customCA.configMap="""#]),
    ("customCA.configMap", r#""authorities""#, &[]),
    (
        "proxy.url",
        r#""http://proxy.example.com""#,
        &[r#"proxy.secret="""#],
    ),
    ("proxy.secret", r#""another""#, &[]),
    // externalId and sessionName are refused without it.
    (
        "defaultClass.aws.roleArn",
        r#""arn:aws:iam::444455556666:role/another""#,
        &[],
    ),
    ("crds.enabled", "false", &[]),
    ("rbac.create", "false", &[]),
    ("drain.enabled", "false", &[]),
    ("networkPolicy.enabled", "false", &[]),
    ("networkPolicy.proxy.ports", "[3128]", &[]),
    ("admissionPolicy.enabled", "false", &[]),
    ("serviceMonitor.enabled", "false", &[]),
    ("prometheusRule.enabled", "false", &[]),
    ("dashboard.enabled", "false", &[]),
    ("dashboard.labels.grafana_dashboard", r#""2""#, &[]),
    // Of each workload.
    (".serviceAccount.create", "false", &[]),
    (".podDisruptionBudget.enabled", "false", &[]),
    (".resources.requests.cpu", r#""7""#, &[]),
    (".resources.requests.memory", r#""7Gi""#, &[]),
    (".resources.requests.ephemeral-storage", r#""7Gi""#, &[]),
    (".resources.limits.cpu", r#""7""#, &[]),
    (".resources.limits.memory", r#""7Gi""#, &[]),
    (".resources.limits.ephemeral-storage", r#""7Gi""#, &[]),
];

const WORKLOADS: [&str; 3] = ["controller", "relay", "allInOne"];

/// `everything.yaml` with these changes, as the chart is rendered with it.
async fn everything(changes: &[String]) -> String {
    let values = in_checkout("tests/chart/values/everything.yaml");
    let mut options = vec![format!("--values={}", values.display())];
    options.extend(changes.iter().map(|change| format!("--set-json={change}")));
    let rendered = render(&options).await;
    rendered.unwrap_or_else(|error| panic!("{changes:?}: {error:#}"))
}

/// How a value is changed, and what has to be beside it.
fn change(path: &str, default: &Value) -> (String, Vec<String>) {
    let workload = WORKLOADS.iter().find_map(|workload| {
        path.strip_prefix(workload)
            .filter(|rest| rest.starts_with('.'))
    });
    let mut table = OTHERWISE.iter();
    let row = table.find(|(of, _, _)| *of == workload.unwrap_or(path));
    let (value, beside) = match row {
        Some((_, value, beside)) => ((*value).to_owned(), *beside),
        None => (default.to_string(), &[][..]),
    };
    let mut beside: Vec<_> = beside.iter().map(ToString::to_string).collect();
    if path.starts_with("allInOne.") {
        beside.push(r#"mode="all-in-one""#.to_owned());
    }
    (format!("{path}={value}"), beside)
}

#[tokio::test]
async fn each_value_changes_what_is_rendered() {
    let values = yaml("values.yaml");
    let mut paths = BTreeSet::new();
    paths_of_values(&values, "", &mut paths);
    assert!(paths.len() > 100, "{} values were read", paths.len());
    let changes: Vec<_> = paths
        .iter()
        .map(|path| {
            let default = values.pointer(&path.replace('.', "/"));
            change(&path[1..], default.expect("it was read from there"))
        })
        .collect();
    let mut before = BTreeMap::new();
    for (_, beside) in &changes {
        if !before.contains_key(beside) {
            before.insert(beside, everything(beside).await);
        }
    }
    let tried = changes.iter().map(async |(change, beside)| {
        let all = [&beside[..], std::slice::from_ref(change)].concat();
        (everything(&all).await == before[beside]).then_some(change)
    });
    let tried: Vec<_> = futures::stream::iter(tried)
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    let inert: Vec<_> = tried.into_iter().flatten().collect();
    // Either nothing reads the value, or everything.yaml does not set it: then it needs a row above.
    assert!(inert.is_empty(), "{inert:#?}");
}

#[test]
fn a_change_is_the_rows_of_the_table_or_back_to_the_default() {
    let beside = vec![r#"mode="all-in-one""#.to_owned()];
    for (path, expected) in [
        ("relay.replicas", ("relay.replicas=2".to_owned(), vec![])),
        (
            "allInOne.replicas",
            ("allInOne.replicas=2".to_owned(), beside),
        ),
        ("crds.enabled", ("crds.enabled=false".to_owned(), vec![])),
        (
            "relay.resources.limits.cpu",
            (r#"relay.resources.limits.cpu="7""#.to_owned(), vec![]),
        ),
    ] {
        assert_eq!(change(path, &json!(2)), expected);
    }
}
