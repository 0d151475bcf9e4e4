//! Every metric, as `/metrics` announces it, with its labels.

use std::collections::{BTreeMap, BTreeSet};

use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use ssm_session_operator::controller::metrics::{DefinitionLabels, Kind, PollLabels, ScopeLabels};
use ssm_session_operator::{binding, controller, relay};

use crate::page;
use crate::page::{code, codes, table};

const ABOUT: &str = "What `/metrics` on port 8080 shows, in OpenMetrics. A controller has those of `ssm_operator_controller`, \
a relay the others,\nand `all-in-one` has all.";

/// The value here of a label whose values are not a closed set.
const OPEN: &str = "…";

pub fn page() -> String {
    let mut registry = Registry::default();
    let controller = controller::metrics::Metrics::register(&mut registry);
    let labels = PollLabels {
        region: OPEN.to_owned(),
    };
    // These have a series for each Region that is polled, and none until one is.
    drop(controller.poll_errors.get_or_create(&labels));
    drop(controller.poll_timestamp.get_or_create(&labels));
    let scope = ScopeLabels {
        scope: OPEN.to_owned(),
    };
    // One for each namespace that is watched.
    drop(controller.scope_synced.get_or_create(&scope));
    // And these once a kind was looked at.
    for kind in Kind::DEFINED {
        drop(
            controller
                .crd_outdated
                .get_or_create(&DefinitionLabels { kind }),
        );
    }
    let _ = binding::BindingMetrics::register(&mut registry);
    relay::Metrics::default().register(&mut registry);
    let mut text = String::new();
    encode(&mut text, &registry).expect("writing to memory does not fail");
    let rows: Vec<_> = families(&text).iter().map(row).collect();
    let table = table(["Metric", "Type", "Unit", "Labels", "Meaning"], &rows);
    page::page("Metrics", ABOUT, &[table])
}

/// A metric, and what of it shows.
#[derive(Default)]
struct Family<'a> {
    /// As it is queried: a counter's samples have an ending that its family has not.
    name: &'a str,
    kind: &'a str,
    unit: &'a str,
    help: &'a str,
    labels: BTreeMap<&'a str, BTreeSet<&'a str>>,
}

fn families(text: &str) -> Vec<Family<'_>> {
    let mut families: Vec<Family<'_>> = Vec::new();
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            families.push(Family {
                help: words(help),
                ..Family::default()
            });
            continue;
        }
        let Some(family) = families.last_mut() else {
            continue;
        };
        if let Some(kind) = line.strip_prefix("# TYPE ") {
            family.kind = words(kind);
        } else if let Some(unit) = line.strip_prefix("# UNIT ") {
            family.unit = words(unit);
        } else if !line.starts_with('#') {
            let (sample, _) = line.rsplit_once(' ').expect("a sample has a value");
            let (name, labels) = sample.split_once('{').unwrap_or((sample, ""));
            family.name = name;
            let labels = labels.trim_end_matches('}').split_terminator(',');
            for (label, value) in labels.filter_map(|label| label.split_once('=')) {
                let values = family.labels.entry(label).or_default();
                values.insert(value.trim_matches('"'));
            }
        }
    }
    families
}

/// What stands behind the metric's name.
fn words(comment: &str) -> &str {
    comment.split_once(' ').map_or("", |(_, words)| words)
}

fn row(family: &Family<'_>) -> [String; 5] {
    assert!(
        !family.name.is_empty(),
        "a metric shows no sample (`{}`): give it one here, or let it show from the start",
        family.help
    );
    let label = |(label, values): (&&str, &BTreeSet<&str>)| {
        let values: Vec<_> = values.iter().filter(|value| **value != OPEN).collect();
        if values.is_empty() {
            code(label)
        } else {
            format!("{}: {}", code(label), codes(values))
        }
    };
    let labels: Vec<_> = family.labels.iter().map(label).collect();
    [
        code(family.name),
        family.kind.to_owned(),
        family.unit.to_owned(),
        labels.join("; "),
        family.help.to_owned(),
    ]
}
