//! What `docs/iam.md` says of rights in AWS.

#![allow(
    dead_code,
    reason = "each test program that includes this file uses a part of it"
)]

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;

use crate::programs::in_checkout;

fn page() -> String {
    fs::read_to_string(in_checkout("docs/iam.md")).expect("it is in the checkout")
}

/// The calls that the table has for a column, such as `Relay`.
pub fn calls(of: &str) -> BTreeSet<String> {
    let page = page();
    let rows = page.lines().filter(|line| line.starts_with('|'));
    let cells = |row: &str| row.split('|').map(|cell| cell.trim().to_owned()).collect();
    let rows: Vec<Vec<String>> = rows.map(cells).collect();
    let mut head = rows[0].iter();
    let column = head.position(|cell| cell == of).expect("a column");
    let is_yes = |row: &&Vec<String>| row.get(column).is_some_and(|cell| cell == "yes");
    let calls = rows.iter().filter(is_yes);
    calls
        .map(|row| row[1].trim_matches('`').to_owned())
        .collect()
}

/// The actions that the policy under this heading allows, such as `ssm:StartSession`.
pub fn actions(heading: &str) -> BTreeSet<String> {
    let page = page();
    let (_, section) = page
        .split_once(&format!("\n## {heading}\n"))
        .unwrap_or_else(|| panic!("docs/iam.md has no {heading}"));
    let (_, policy) = section.split_once("```json\n").expect("it shows a policy");
    let (policy, _) = policy.split_once("\n```").expect("a fence has an end");
    let policy: Value = serde_json::from_str(policy).expect("it is JSON");
    let statements = policy["Statement"].as_array().expect("a list");
    let actions = statements.iter().flat_map(|statement| {
        assert_eq!(statement["Effect"], "Allow");
        match &statement["Action"] {
            Value::Array(actions) => actions.clone(),
            action => vec![action.clone()],
        }
    });
    let word = |action: Value| action.as_str().expect("a word").to_owned();
    actions.map(word).collect()
}
