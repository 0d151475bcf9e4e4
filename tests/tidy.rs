//! Holds the rules of the house over its sources: which floor may use which, how long a file may
//! be, which names and calls are not for us. Each rule is one test, and its message says how to
//! mend what it found.
//!
//! The sources are read as text, without their comments and literals: enough for the rules here,
//! and nothing has to compile.
#![allow(clippy::expect_used, clippy::panic, reason = "so does a test fail")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Files above this are two things in one.
const LINES_MAX: usize = 400;

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
    ("telemetry", May::Only(&[])),
    ("election", May::Only(&[])),
    ("controller", May::Only(&["crd", "broker"])),
    ("binding", May::Only(&["crd", "relay", "broker"])),
    ("relay", May::Only(&["protocol", "broker"])),
    ("aws", May::Only(&["broker"])),
    ("crd", May::Only(&[])),
    ("protocol", May::Only(&[])),
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

/// Words that say nothing about what a thing is.
const EMPTY_WORDS: &[&str] = &["manager", "managers", "helper", "helpers", "util", "utils"];

#[test]
fn a_floor_uses_only_the_floors_below_it() {
    report(
        "move the shared part down to the floor that both may use, or let the lower floor own a \
         trait that the upper one implements; the table is FLOORS in tests/tidy.rs",
        sources("src")
            .iter()
            .flat_map(|source| floor_violations(&source.path, &source.code)),
    );
}

#[test]
fn kubernetes_and_the_aws_sdk_stay_on_their_floors() {
    const KUBERNETES: &[&str] = &["kube::", "kube_runtime::", "k8s_openapi::"];
    const WITHOUT_KUBERNETES: &[&str] = &["protocol", "relay", "broker", "aws", "simulator"];
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

#[test]
fn a_file_is_at_most_400_lines_long() {
    report(
        "split it by what it holds; tests may go to a `tests.rs` of the same folder",
        sources("src").iter().filter_map(|source| {
            let lines = source.text.lines().count();
            (lines > LINES_MAX).then(|| format!("{}: {lines} lines", source.path))
        }),
    );
}

#[test]
fn names_say_what_a_thing_is() {
    report(
        "name it after what it holds or does: Manager, Helper and Util fit everything",
        sources("src").iter().flat_map(|source| {
            let stem = stem(&source.path);
            let file = stem.split('_').any(|word| EMPTY_WORDS.contains(&word));
            let file = file.then(|| source.path.clone());
            let types = type_names(&source.code)
                .into_iter()
                .filter(|name| {
                    camel_words(name)
                        .iter()
                        .any(|w| EMPTY_WORDS.contains(&w.as_str()))
                })
                .map(|name| format!("{}: {name}", source.path));
            file.into_iter().chain(types).collect::<Vec<_>>()
        }),
    );
}

#[test]
fn a_module_is_a_file_or_a_folder_but_not_both() {
    report(
        "move the file into the folder as mod.rs",
        sources("src").iter().filter_map(|source| {
            let folder = root().join(&source.path).with_extension("");
            folder
                .is_dir()
                .then(|| format!("{} beside {}/", source.path, folder.display()))
        }),
    );
}

#[test]
fn the_protocol_reads_no_clock_opens_no_socket_and_never_panics() {
    const BANNED: &[&str] = &[
        "Instant::now",
        "SystemTime::now",
        "tokio::",
        "std::net",
        "spawn",
        ".unwrap()",
        ".expect(",
        "panic!",
        "unreachable!",
    ];
    report(
        "take `now` and the bytes as arguments, and give malformed input an error of its own",
        sources("src/protocol")
            .iter()
            .filter(|source| stem(&source.path) != "tests")
            .flat_map(|source| mentions(source, &without_tests(&source.code), BANNED)),
    );
}

#[test]
fn the_controller_decides_without_async() {
    report(
        "observe first, then decide on what was observed: `decide` has no client to wait for",
        sources("src/controller")
            .iter()
            .filter(|source| source.path.contains("/decide.rs") || source.path.contains("/decide/"))
            .flat_map(|source| mentions(source, &source.code, &["async", "await"])),
    );
}

#[test]
fn the_controller_writes_to_kubernetes_in_act_and_report_alone() {
    const WRITES: [&str; 6] = [
        ".create(",
        ".patch(",
        ".patch_status(",
        ".replace(",
        ".replace_status(",
        ".delete(",
    ];
    // The Lease of a relay that is gone belongs to no object that is reconciled.
    let may_write = ["/act.rs", "/report.rs", "controller/relays/task.rs"];
    let writes = |source: &Source| {
        let lines = source.code.lines().enumerate();
        let written = lines.filter(|(_, line)| WRITES.iter().any(|write| line.contains(write)));
        written
            .map(|(number, _)| format!("{}:{}", source.path, number + 1))
            .collect::<Vec<_>>()
    };
    report(
        "let `decide` plan the write, and `act` or `report` do it",
        sources("src/controller")
            .iter()
            .filter(|source| !source.path.contains("test") && !source.path.contains("fixtures"))
            .filter(|source| !may_write.iter().any(|file| source.path.ends_with(file)))
            .flat_map(writes),
    );
}

#[test]
fn nothing_is_left_unfinished() {
    const BANNED: &[&str] = &["todo!", "unimplemented!", "dbg!", "#[ignore"];
    report(
        "finish it or take it out",
        everywhere()
            .iter()
            .flat_map(|source| mentions(source, &source.code, BANNED)),
    );
}

#[test]
fn unused_code_is_removed_and_not_allowed() {
    report(
        "remove what is not used",
        sources("src").iter().flat_map(|source| {
            mentions(source, &source.code, &["allow(dead_code", "allow(unused"])
        }),
    );
}

#[test]
fn tests_wait_on_a_condition_and_never_on_a_sleep() {
    const BANNED: &[&str] = &["sleep", "sleep_until"];
    report(
        "wait until the thing has happened: the loop that polls, with its deadline, belongs into \
         tests/support",
        sources("tests")
            .iter()
            .filter(|source| !source.path.starts_with("tests/support/"))
            .flat_map(|source| mentions(source, &source.code, BANNED)),
    );
}

#[test]
fn a_module_opens_with_what_it_holds() {
    report(
        "begin the file with `//!`: what it holds and what it promises",
        sources("src")
            .iter()
            .filter(|source| !source.text.starts_with("//! "))
            .map(|source| source.path.clone()),
    );
}

#[test]
fn there_is_one_rustls_and_no_other_tls_stack() {
    const OTHERS: &[&str] = &[
        "openssl",
        "openssl-sys",
        "native-tls",
        "aws-lc-rs",
        "aws-lc-sys",
    ];
    let lock = fs::read_to_string(root().join("Cargo.lock")).expect("Cargo.lock is committed");
    let packages = locked_packages(&lock);
    let others = packages
        .iter()
        .filter(|name| OTHERS.contains(name))
        .map(std::string::ToString::to_string);
    let rustls = packages.iter().filter(|name| **name == "rustls").count();
    report(
        "switch off the feature that brings it in (`cargo tree -i NAME` names the way)",
        others.chain((rustls != 1).then(|| format!("{rustls} versions of rustls, not one"))),
    );
}

// What the rules are made of.

/// A Rust file: where it is, its text, and its text without comments and literals.
struct Source {
    path: String,
    text: String,
    code: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The Rust files below a folder of the checkout, by path; none when there is no such folder.
fn sources(folder: &str) -> Vec<Source> {
    let mut paths = Vec::new();
    collect(&root().join(folder), &mut paths);
    assert!(
        !paths.is_empty(),
        "{folder} holds no source: its rules would hold for nothing"
    );
    paths.sort();
    paths
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(&path).expect("a source is readable UTF-8");
            let path = path
                .strip_prefix(root())
                .expect("below the root")
                .display()
                .to_string();
            Source {
                path,
                code: code_of(&text),
                text,
            }
        })
        .collect()
}

fn everywhere() -> Vec<Source> {
    ["src", "tests", "benches", "examples"]
        .into_iter()
        .flat_map(sources)
        .collect()
}

fn collect(folder: &Path, paths: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries {
        let path = entry.expect("a readable folder").path();
        if path.is_dir() {
            collect(&path, paths);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            paths.push(path);
        }
    }
}

/// Fails with all offenders at once, and with the way to mend them.
fn report(mend: &str, offenders: impl IntoIterator<Item = String>) {
    let offenders: Vec<_> = offenders.into_iter().collect();
    assert!(
        offenders.is_empty(),
        "\n  {}\nTo mend it: {mend}.\n",
        offenders.join("\n  ")
    );
}

fn stem(path: &str) -> &str {
    path.rsplit('/')
        .next()
        .unwrap_or(path)
        .trim_end_matches(".rs")
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

/// Words, `::`, and every other character by itself.
fn tokens(code: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = code.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = if is_word_char(first) {
            rest.find(|c| !is_word_char(c)).unwrap_or(rest.len())
        } else if rest.starts_with("::") {
            2
        } else {
            first.len_utf8()
        };
        let (token, after) = rest.split_at(length);
        found.push(token);
        rest = after.trim_start();
    }
    found
}

fn is_word(token: &str) -> bool {
    token.starts_with(is_word_char)
}

fn is_word_char(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The lines on which one of the words stands, as words of their own.
fn mentions(source: &Source, code: &str, banned: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for (number, line) in code.lines().enumerate() {
        for word in banned.iter().filter(|word| has_word(line, word)) {
            found.push(format!("{}:{}: {word}", source.path, number + 1));
        }
    }
    found
}

/// Whether the text stands in the line, and not as a part of a longer word.
fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(start, _)| {
        let (before, after) = (&line[..start], &line[start + word.len()..]);
        let joined_before = is_word(word) && before.ends_with(is_word_char);
        let joined_after = word.ends_with(is_word_char) && after.starts_with(is_word_char);
        !joined_before && !joined_after
    })
}

fn type_names(code: &str) -> Vec<&str> {
    let tokens = tokens(code);
    let is_type = |token: &str| matches!(token, "struct" | "enum" | "trait" | "type" | "union");
    tokens
        .windows(2)
        .filter(|pair| is_type(pair[0]) && is_word(pair[1]))
        .map(|p| p[1])
        .collect()
}

/// The words of `ThisName`, in lower case.
fn camel_words(name: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for c in name.chars() {
        if c.is_uppercase() || words.is_empty() {
            words.push(String::new());
        }
        if let Some(word) = words.last_mut() {
            word.extend(c.to_lowercase());
        }
    }
    words
}

fn locked_packages(lock: &str) -> Vec<&str> {
    let names = lock
        .lines()
        .filter_map(|line| line.strip_prefix("name = \""));
    names.map(|rest| rest.trim_end_matches('"')).collect()
}

/// The code with its `#[cfg(test)]` items blanked, on the same lines.
fn without_tests(code: &str) -> String {
    let mut kept = code.to_owned();
    while let Some(start) = kept.find("#[cfg(test)]") {
        let mut depth = 0_usize;
        let mut end = kept.len();
        for (at, c) in kept[start..].char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth = depth.saturating_sub(1),
                _ => {}
            }
            if depth == 0 && matches!(c, '}' | ';') {
                end = start + at + 1;
                break;
            }
        }
        let blank = blanked(&kept[start..end]);
        kept.replace_range(start..end, &blank);
    }
    kept
}

/// The text with comments and the insides of literals blanked, on the same lines.
fn code_of(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let joined = code.ends_with(is_word_char);
        let (kept, blank) = match first {
            '/' if rest.starts_with("//") => (0, rest.find('\n').unwrap_or(rest.len())),
            '/' if rest.starts_with("/*") => (0, block_comment_length(rest)),
            '"' => (0, string_length(rest)),
            '\'' => (0, char_length(rest).unwrap_or(0)),
            'r' if !joined => (0, raw_string_length(rest).unwrap_or(0)),
            'b' if !joined && rest.starts_with("br") => (
                0,
                raw_string_length(&rest[1..]).map_or(0, |length| length + 1),
            ),
            _ => (first.len_utf8(), 0),
        };
        // What begins like a literal and is none (a lifetime, a word) stays as it is.
        let kept = if blank == 0 {
            kept.max(first.len_utf8())
        } else {
            kept
        };
        code.push_str(&rest[..kept]);
        code.push_str(&blanked(&rest[kept..kept + blank]));
        rest = &rest[kept + blank..];
    }
    code
}

fn blanked(text: &str) -> String {
    text.chars()
        .map(|c| if c == '\n' { '\n' } else { ' ' })
        .collect()
}

fn block_comment_length(text: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < text.len() {
        if text[at..].starts_with("/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if text[at..].starts_with("*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

fn string_length(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

fn raw_string_length(text: &str) -> Option<usize> {
    let hashes = text[1..].chars().take_while(|c| *c == '#').count();
    let body = text[1 + hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    Some(2 + hashes + body.find(&end).map_or(body.len(), |at| at + end.len()))
}

/// The length of a character literal; none for a lifetime.
fn char_length(text: &str) -> Option<usize> {
    let mut chars = text.char_indices().skip(1);
    let (_, first) = chars.next()?;
    if first == '\\' {
        chars.next()?;
        return chars.find(|(_, c)| *c == '\'').map(|(at, _)| at + 1);
    }
    let (at, second) = chars.next()?;
    (second == '\'').then_some(at + 1)
}

/// The rules can fail: each of their parts, on code made up for it.
mod the_rules_can_fail {
    use super::*;

    #[test]
    fn comments_and_literals_are_not_code() {
        let text = "a // crate::relay\n/* b /* c */ d */ e \"f \\\" g\" r#\"h \" i\"# 'j' '\\'' '\\u{2a}' 'k";
        assert_eq!(tokens(&code_of(text)), ["a", "e", "'", "k"]);
        assert_eq!(code_of(text).lines().count(), text.lines().count());
        assert_eq!(
            tokens(&code_of("for rest in brief { br\"x\" b\"y\" }")).len(),
            7
        );
    }

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

    #[test]
    fn a_word_is_found_only_as_a_word() {
        assert!(has_word("x.unwrap();", ".unwrap()"));
        assert!(has_word("tokio::spawn(f)", "spawn"));
        assert!(!has_word("respawned", "spawn"));
        assert!(!has_word("mykube::x", "kube::"));
        assert!(!has_word("x.unwrap_or(1)", ".unwrap()"));
    }

    #[test]
    fn tests_inside_a_file_are_left_out() {
        let code = "a();\n#[cfg(test)]\nmod tests {\n fn f() { b(); }\n}\nc();\n#[cfg(test)]\nmod t;\nd();";
        assert_eq!(tokens(&without_tests(code)).concat(), "a();c();d();");
        assert_eq!(without_tests(code).lines().count(), code.lines().count());
    }

    #[test]
    fn type_names_are_read_word_by_word() {
        assert_eq!(
            type_names("pub struct A<T>(T); enum LeaseManager {}"),
            ["A", "LeaseManager"]
        );
        assert_eq!(camel_words("LeaseManager"), ["lease", "manager"]);
        assert_eq!(camel_words("Utilization"), ["utilization"]);
    }

    #[test]
    fn packages_are_read_from_the_lock() {
        assert_eq!(
            locked_packages("[[package]]\nname = \"rustls\"\nversion = \"1\""),
            ["rustls"]
        );
    }
}
