//! What the conditions promise to whoever reads a status.
#![allow(clippy::expect_used, clippy::panic, reason = "so does a test fail")]

use super::*;
use crate::crd::text::TEXT_CHARS_MAX;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("a small number of seconds")
}

fn available() -> Conditions {
    let mut conditions = Conditions::new(3);
    conditions.set(
        Condition::Available(AvailableReason::Serving),
        "1 of 1 ports",
    );
    conditions.set(
        Condition::Ready(ReadyReason::Available),
        "all ports can be dialled",
    );
    conditions
}

#[test]
fn the_order_is_that_of_the_types_and_not_of_the_calls() {
    let merged = available().merge(&[], at(100));
    let types: Vec<_> = merged
        .iter()
        .map(|condition| condition.type_.as_str())
        .collect();
    assert_eq!(types, ["Ready", "Available"]);
    assert!(
        merged
            .iter()
            .all(|condition| condition.observed_generation == Some(3))
    );
}

#[test]
fn the_same_state_later_gives_the_same_conditions() {
    let first = available().merge(&[], at(100));
    assert_eq!(available().merge(&first, at(200)), first);
}

#[test]
fn another_reason_with_the_same_status_keeps_the_transition_time() {
    let mut conditions = Conditions::new(1);
    conditions.set(Condition::Ready(ReadyReason::Progressing), "starting");
    let first = conditions.merge(&[], at(100));
    conditions.set(Condition::Ready(ReadyReason::Failed), "AWS denies");
    let second = conditions.merge(&first, at(200));
    assert_eq!(second[0].last_transition_time, Time(at(100)));
    assert_eq!(
        (second[0].reason.as_str(), second[0].message.as_str()),
        ("Failed", "AWS denies")
    );
}

#[test]
fn another_status_moves_the_transition_time() {
    let first = available().merge(&[], at(100));
    let mut conditions = available();
    conditions.set(Condition::Ready(ReadyReason::Degraded), "one port is down");
    let second = conditions.merge(&first, at(200));
    assert_eq!(second[0].last_transition_time, Time(at(200)));
    assert_eq!(second[1].last_transition_time, Time(at(100)));
}

#[test]
fn a_condition_that_is_no_longer_set_is_gone() {
    let mut conditions = available();
    conditions.set(Condition::Stalled(StalledReason::AccessDenied), "IAM");
    let first = conditions.merge(&[], at(100));
    let types = |list: &[ApiCondition]| list.iter().map(|c| c.type_.clone()).collect::<Vec<_>>();
    assert_eq!(types(&first), ["Ready", "Stalled", "Available"]);
    assert_eq!(
        types(&available().merge(&first, at(200))),
        ["Ready", "Available"]
    );
}

#[test]
fn the_transition_time_is_what_the_api_will_read_back() {
    let now = Timestamp::from_millisecond(100_900).expect("a small number of milliseconds");
    let merged = available().merge(&[], now);
    let text = serde_json::to_string(&merged).expect("conditions have a JSON form");
    let back: Vec<ApiCondition> = serde_json::from_str(&text).expect("and are read back from it");
    assert_eq!(back, merged);
}

#[test]
fn a_long_message_is_cut() {
    let mut conditions = Conditions::new(1);
    conditions.set(
        Condition::Ready(ReadyReason::Failed),
        "x".repeat(TEXT_CHARS_MAX * 2),
    );
    let merged = conditions.merge(&[], at(100));
    assert_eq!(merged[0].message.chars().count(), TEXT_CHARS_MAX);
}

#[test]
fn the_table_names_every_reason_under_its_type_and_status() {
    let table = include_str!("mod.rs");
    let rows = table.lines().filter(|line| line.starts_with("//! | `"));
    assert_eq!(rows.count(), ConditionType::ALL.len());
    let types = ConditionType::ALL.iter().copied();
    for condition in types.flat_map(ConditionType::conditions) {
        let type_ = condition.condition_type().as_str();
        let row = table
            .lines()
            .find(|line| line.starts_with(&format!("//! | `{type_}`")))
            .unwrap_or_else(|| panic!("the table has no row for {type_}"));
        let cells: Vec<_> = row.split('|').collect();
        let cell = match condition.status() {
            ConditionStatus::True => cells[2],
            ConditionStatus::False => cells[3],
        };
        let reason = condition.reason();
        assert!(
            cell.contains(&format!("`{reason}`")),
            "{type_}/{reason} is not in its cell"
        );
    }
}
