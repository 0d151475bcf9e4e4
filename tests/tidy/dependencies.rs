//! What comes with our dependencies.

use std::fs;

use crate::source::{report, root};

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

fn locked_packages(lock: &str) -> Vec<&str> {
    let names = lock
        .lines()
        .filter_map(|line| line.strip_prefix("name = \""));
    names.map(|rest| rest.trim_end_matches('"')).collect()
}

// The rule can fail: each of its parts, on code made up for it.

#[test]
fn packages_are_read_from_the_lock() {
    assert_eq!(
        locked_packages("[[package]]\nname = \"rustls\"\nversion = \"1\""),
        ["rustls"]
    );
}
