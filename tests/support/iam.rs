//! What `docs/iam.md` says of rights in AWS, and what AWS makes of that, as far as these policies go: a statement that says
//! anything else can't be read.

#![allow(
    dead_code,
    reason = "each test program that includes this file uses a part of it"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use serde::Deserialize;

use crate::programs::in_checkout;

/// Keys of a request, and what each says.
pub type Context<'a> = &'a [(&'a str, &'a str)];

/// A policy: of what somebody may do, or of who may have a role.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Policy {
    #[serde(rename = "Version")]
    _version: String,
    statement: Vec<Statement>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Statement {
    #[serde(rename = "Sid")]
    _sid: Option<String>,
    #[serde(rename = "Effect")]
    _effect: Effect,
    principal: Option<BTreeMap<String, Words>>,
    action: Words,
    /// A role's trust policy has none.
    resource: Option<Words>,
    #[serde(default)]
    condition: BTreeMap<Operator, BTreeMap<String, Words>>,
}

#[derive(Deserialize)]
enum Effect {
    Allow,
}

#[derive(Deserialize, PartialEq, Eq, PartialOrd, Ord)]
enum Operator {
    StringEquals,
    BoolIfExists,
}

/// One or several.
#[derive(Deserialize)]
#[serde(untagged)]
enum Words {
    One(String),
    Several(Vec<String>),
}

impl Words {
    fn all(&self) -> &[String] {
        match self {
            Self::One(word) => std::slice::from_ref(word),
            Self::Several(words) => words,
        }
    }
}

impl Statement {
    fn is_met(&self, context: Context<'_>) -> bool {
        let conditions = self.condition.iter();
        let mut keys =
            conditions.flat_map(|(operator, keys)| keys.iter().map(move |key| (operator, key)));
        keys.all(|(operator, (key, words))| {
            let said = context.iter().find(|(of, _)| of == key);
            said.map_or(*operator == Operator::BoolIfExists, |(_, said)| {
                words.all().iter().any(|word| word == said)
            })
        })
    }
}

impl Policy {
    /// Reads a policy.
    pub fn read(json: &str) -> Self {
        serde_json::from_str(json).unwrap_or_else(|error| panic!("{error}: {json}"))
    }

    /// Each action with each resource that it is allowed on.
    pub fn rights(&self) -> BTreeSet<(String, String)> {
        let mut rights = BTreeSet::new();
        for statement in &self.statement {
            for action in statement.action.all() {
                for resource in statement.resource.iter().flat_map(Words::all) {
                    rights.insert((action.clone(), resource.clone()));
                }
            }
        }
        rights
    }

    /// The rights by which a request is allowed: none if it is denied.
    pub fn allows(
        &self,
        action: &str,
        resource: &str,
        context: Context<'_>,
    ) -> BTreeSet<(String, String)> {
        let statements = self.statement.iter();
        let met = statements.filter(|statement| {
            statement.action.all().iter().any(|of| of == action) && statement.is_met(context)
        });
        let patterns = met.flat_map(|statement| statement.resource.iter().flat_map(Words::all));
        let patterns = patterns.filter(|pattern| covers(pattern, resource));
        patterns
            .map(|pattern| (action.to_owned(), pattern.clone()))
            .collect()
    }

    /// Whether a trust policy lets somebody in who is this principal, such as `Service` and its name.
    pub fn trusts(&self, principal: (&str, &str), action: &str, context: Context<'_>) -> bool {
        let (kind, name) = principal;
        self.statement.iter().any(|statement| {
            let principals = statement.principal.as_ref();
            let of_kind = principals.and_then(|principals| principals.get(kind));
            of_kind.is_some_and(|names| names.all().iter().any(|of| of == name))
                && statement.action.all().iter().any(|of| of == action)
                && statement.is_met(context)
        })
    }
}

/// Whether a resource of a policy, in which `*` stands for anything, covers an ARN.
fn covers(pattern: &str, arn: &str) -> bool {
    let (begin, rest) = pattern.split_once('*').unwrap_or((pattern, ""));
    assert!(rest.is_empty(), "{pattern}: `*` is known at the end alone");
    let covered = arn.strip_prefix(begin);
    covered.is_some_and(|rest| rest.is_empty() || pattern.ends_with('*'))
}

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

/// What stands in the fences of a language below this heading and above the next.
pub fn shown(heading: &str, language: &str) -> Vec<String> {
    let page = page();
    let (_, section) = page
        .split_once(&format!("# {heading}\n"))
        .unwrap_or_else(|| panic!("docs/iam.md has no {heading}"));
    let section = section.split("\n#").next().unwrap_or_default();
    let opening = format!("```{language}\n");
    let fences = section.split(&opening).skip(1);
    fences
        .map(|fence| {
            fence
                .split_once("```")
                .expect("a fence has an end")
                .0
                .to_owned()
        })
        .collect()
}

/// The policy under this heading.
pub fn policy(heading: &str) -> Policy {
    let shown = shown(heading, "json");
    assert_eq!(shown.len(), 1, "{heading} has one policy");
    Policy::read(&shown[0])
}

/// The actions that the policy under this heading allows, such as `ssm:StartSession`.
pub fn actions(heading: &str) -> BTreeSet<String> {
    let rights = policy(heading).rights();
    rights.into_iter().map(|(action, _)| action).collect()
}

/// The ARN of a session of the page's account and Region.
pub fn session(id: &str) -> String {
    format!("arn:aws:ssm:eu-central-1:123456789012:session/{id}")
}
