//! Every metric, as `/metrics` announces it, with its labels.

use std::collections::{BTreeMap, BTreeSet};

use crate::page;
use crate::page::{code, codes, table};
use crate::served::{self, OPEN};
use crate::troubleshooting::section;

const ABOUT: &str = "What `/metrics` on port 8080 shows, in OpenMetrics. A controller has those of `ssm_operator_controller`, \
a relay those of\n`ssm_operator_relay` and `ssm_operator_binding`, both have the others, and `all-in-one` has all. A histogram \
is queried\nas `…_bucket`, `…_sum` and `…_count`. The values of labels are closed sets, but for classes, Regions and the version: \
none is\nanother object's name, a target, a session's id or a text of AWS.";

/// A label with more values than these has a page of its own.
const VALUES_MAX: usize = 12;

pub fn page() -> String {
    let text = served::text();
    let families = families(&text);
    let lost = "ssm_operator_relay_websockets_lost_total";
    let mut of_lost = families.iter().filter(|family| family.name == lost);
    let of_lost = of_lost.next().expect("it is served");
    section("Why a websocket was lost").assert_names(of_lost.labels["reason"].iter().copied());
    let rows: Vec<_> = families.iter().map(row).collect();
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
            family.name = family_of(name, family.kind);
            let labels = labels.trim_end_matches('}').split_terminator(',');
            let labels = labels.filter_map(|label| label.split_once('='));
            for (label, value) in labels.filter(|(label, _)| *label != "le") {
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

/// A histogram is one metric with three kinds of samples.
fn family_of<'a>(sample: &'a str, kind: &str) -> &'a str {
    let endings = ["_bucket", "_sum", "_count"];
    let mut endings = endings.iter().filter(|_| kind == "histogram");
    let family = endings.find_map(|ending| sample.strip_suffix(ending));
    family.unwrap_or(sample)
}

fn row(family: &Family<'_>) -> [String; 5] {
    assert!(
        !family.name.is_empty(),
        "a metric shows no sample (`{}`): give it one in tests/support/served.rs, or let it show from the start",
        family.help
    );
    let label = |(label, values): (&&str, &BTreeSet<&str>)| {
        let values: Vec<_> = values.iter().filter(|value| **value != OPEN).collect();
        if values.is_empty() || values.len() > VALUES_MAX {
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
