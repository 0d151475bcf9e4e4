//! Which floor of the house may use which.

use std::collections::BTreeSet;

use crate::source::{mentions, report, sources, stem};
use crate::text::{is_word, tokens};

/// What a floor may mention of the other floors.
enum May {
    /// Wiring: everything.
    All,
    /// These floors, and nothing else of ours.
    Only(&'static [&'static str]),
    /// These modules, and nothing else of ours.
    Modules(&'static [&'static str]),
}

/// The floors, as `src/README.md` describes them. A module that is not named here does not belong
/// into `src/`.
const FLOORS: &[(&str, May)] = &[
    ("main", May::All),
    ("bin", May::All),
    ("lib", May::All),
    ("cli", May::All),
    ("operator", May::All),
    ("admin", May::Only(&[])),
    ("telemetry", May::Only(&["words"])),
    ("election", May::Only(&["backoff", "lease"])),
    ("drain", May::Only(&["backoff", "crd", "lease", "reading"])),
    ("reading", May::Only(&["backoff"])),
    ("lease", May::Only(&[])),
    ("backoff", May::Only(&[])),
    ("identity", May::Only(&["crd", "broker"])),
    (
        "controller",
        May::Only(&["backoff", "crd", "broker", "lease", "identity", "reading"]),
    ),
    (
        "binding",
        May::Only(&[
            "backoff", "crd", "relay", "broker", "lease", "identity", "reading", "words",
        ]),
    ),
    (
        "relay",
        May::Only(&["backoff", "protocol", "broker", "proxy"]),
    ),
    ("aws", May::Only(&["backoff", "broker", "proxy", "words"])),
    ("proxy", May::Only(&["words"])),
    ("crd", May::Only(&["words"])),
    ("protocol", May::Only(&["words"])),
    ("words", May::Only(&[])),
    ("broker", May::Only(&[])),
    (
        // The simulator shares the codecs and not the machines, so that one misreading of the
        // protocol does not cancel the other.
        "simulator",
        May::Modules(&[
            "protocol::message",
            "protocol::payload",
            "protocol::handshake",
            "protocol::mux::frame",
        ]),
    ),
];

#[test]
fn a_floor_uses_only_the_floors_below_it() {
    report(
        "move the shared part down to the floor that both may use, or let the lower floor own a \
         trait that the upper one implements; the table is FLOORS in tests/tidy/floors.rs",
        sources("src")
            .iter()
            .flat_map(|source| floor_violations(&source.path, &source.code)),
    );
}

#[test]
fn kubernetes_and_the_aws_sdk_stay_on_their_floors() {
    const KUBERNETES: &[&str] = &["kube::", "kube_runtime::", "k8s_openapi::"];
    const WITHOUT_KUBERNETES: &[&str] =
        &["protocol", "relay", "broker", "aws", "proxy", "simulator"];
    report(
        "a relay runs without Kubernetes, and only `aws` knows the SDK: pass our own types",
        sources("src").iter().flat_map(|source| {
            let floor = floor_of(&source.path);
            let mut banned = Vec::new();
            if WITHOUT_KUBERNETES.contains(&floor.as_str()) {
                banned.extend_from_slice(KUBERNETES);
            }
            if floor != "aws" {
                banned.push("aws_sdk_ssm::");
            }
            mentions(source, &source.code, &banned)
        }),
    );
}

/// The floor of a file: `relay` for `src/relay/splice.rs`, `cli` for `src/cli.rs`.
fn floor_of(path: &str) -> String {
    let path = path.trim_start_matches("src/");
    path.split('/')
        .next()
        .unwrap_or(path)
        .trim_end_matches(".rs")
        .to_owned()
}

fn floor_violations(path: &str, code: &str) -> Vec<String> {
    let floor = floor_of(path);
    let Some((_, may)) = FLOORS.iter().find(|(name, _)| *name == floor) else {
        return vec![format!("{path}: `{floor}` is no floor of the house")];
    };
    let allowed = |module: &str| match may {
        May::All => true,
        May::Only(floors) => floors.contains(&first_segment(module)),
        May::Modules(modules) => modules.iter().any(|allowed| {
            module
                .strip_prefix(allowed)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
        }),
    };
    our_paths(path, code)
        .into_iter()
        .filter(|module| first_segment(module) != floor && !allowed(module))
        .map(|module| format!("{path}: `{floor}` may not use `{module}`"))
        .collect()
}

fn first_segment(module: &str) -> &str {
    module.split("::").next().unwrap_or(module)
}

/// The paths from the crate's root that the code mentions, with `use` groups spelled out:
/// `crd::session::Phase` for `crate::crd::session::Phase`.
fn our_paths(path: &str, code: &str) -> BTreeSet<String> {
    let depth = module_depth(path);
    let tokens = tokens(code);
    let mut found = BTreeSet::new();
    let mut at = 0;
    while at < tokens.len() {
        let mut next = at;
        let mut supers = 0;
        while tokens[next..].starts_with(&["super", "::"]) {
            supers += 1;
            next += 2;
        }
        if tokens[at..].starts_with(&["crate", "::"]) {
            next = at + 2;
            expand(&tokens, &mut next, "", &mut found);
        } else if supers >= depth && supers > 0 {
            // A `super` more than needed leads out of an inline module, so only names of floors
            // are told apart from names of neighbours.
            let mut names = BTreeSet::new();
            expand(&tokens, &mut next, "", &mut names);
            let is_floor = |name: &String| FLOORS.iter().any(|(f, _)| *f == first_segment(name));
            found.extend(names.into_iter().filter(is_floor));
        }
        at = next.max(at + 1);
    }
    found
}

/// How many times `super` it takes from the file's module to the crate's root.
fn module_depth(path: &str) -> usize {
    let parts = path.trim_start_matches("src/").split('/').count();
    match stem(path) {
        "mod" | "lib" | "main" => parts - 1,
        _ => parts,
    }
}

/// Reads one use tree, or one path in an expression, and adds its leaves to `found`.
fn expand(tokens: &[&str], at: &mut usize, prefix: &str, found: &mut BTreeSet<String>) {
    let Some(token) = tokens.get(*at).copied() else {
        return;
    };
    if token == "{" {
        *at += 1;
        while tokens.get(*at).is_some_and(|token| *token != "}") {
            let before = *at;
            expand(tokens, at, prefix, found);
            while tokens
                .get(*at)
                .is_some_and(|token| !matches!(*token, "," | "}"))
            {
                *at += 1;
            }
            *at += usize::from(tokens.get(*at) == Some(&","));
            if *at == before {
                return;
            }
        }
        *at += 1;
        return;
    }
    if !is_word(token) && token != "*" {
        found.extend((!prefix.is_empty()).then(|| prefix.to_owned()));
        return;
    }
    let here = if prefix.is_empty() {
        token.to_owned()
    } else {
        format!("{prefix}::{token}")
    };
    *at += 1;
    if tokens.get(*at) == Some(&"::") {
        *at += 1;
        expand(tokens, at, &here, found);
    } else {
        found.insert(here);
    }
}

// The rule can fail: each of its parts, on code made up for it.

#[test]
fn use_groups_are_spelled_out() {
    let code =
        "use crate::{crd::{A, b::{self, C}}, broker::D as E, relay};\nx(crate::aws::F::new());";
    let found: Vec<_> = our_paths("src/controller/act.rs", code)
        .into_iter()
        .collect();
    let wanted = [
        "aws::F::new",
        "broker::D",
        "crd::A",
        "crd::b::C",
        "crd::b::self",
        "relay",
    ];
    assert_eq!(found, wanted);
}

#[test]
fn a_way_over_super_is_found() {
    let found = our_paths(
        "src/relay/tunnel.rs",
        "use super::super::crd::A; use super::error;",
    );
    assert_eq!(found.into_iter().collect::<Vec<_>>(), ["crd::A"]);
    assert_eq!(our_paths("src/relay/mod.rs", "use super::aws::B;").len(), 1);
    assert_eq!(
        our_paths("src/relay/tunnel/x.rs", "use super::super::crd::A;").len(),
        0
    );
}

#[test]
fn a_floor_that_looks_up_is_reported() {
    assert_eq!(
        floor_violations("src/relay/tunnel.rs", "use crate::crd::A;").len(),
        1
    );
    assert_eq!(
        floor_violations("src/relay/tunnel.rs", "use crate::broker::A;").len(),
        0
    );
    assert_eq!(
        floor_violations("src/crd/mod.rs", "pub(crate) use crate::crd::A;").len(),
        0
    );
    assert_eq!(
        floor_violations("src/cli.rs", "use crate::{relay, aws};").len(),
        0
    );
    assert_eq!(floor_violations("src/shed.rs", "").len(), 1);
}

#[test]
fn the_simulator_gets_codecs_only() {
    let ours = |code| floor_violations("src/simulator/agent.rs", code).len();
    assert_eq!(
        ours("use crate::protocol::{message::Message, mux::frame::Frame};"),
        0
    );
    assert_eq!(ours("use crate::protocol::mux::{frame, stream};"), 1);
    assert_eq!(ours("use crate::protocol::messages;"), 1);
    assert_eq!(ours("use crate::broker::Ticket;"), 1);
}
