//! Which calls are not for which floor, and which are for nobody.

use crate::source::{Source, everywhere, mentions, report, sources, stem};
use crate::text::without_tests;

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
