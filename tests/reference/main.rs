//! `docs/reference/` holds what the code says, and nothing else: `make reference` writes it. Where a page needs words
//! that are for people in trouble, they are those of `docs/troubleshooting.md`, which names what the code knows.
#![allow(clippy::expect_used, clippy::panic, reason = "so does a test fail")]

mod conditions;
mod events;
mod fields;
mod flags;
mod metrics;
mod page;
mod per_session;
#[path = "../support/served.rs"]
mod served;
mod troubleshooting;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn folder() -> PathBuf {
    root().join("docs/reference")
}

/// Every page: the name of its file, and what the code says.
fn pages() -> [(&'static str, String); 5] {
    [
        ("fields.md", fields::page()),
        ("conditions.md", conditions::page()),
        ("events.md", events::page()),
        ("metrics.md", metrics::page()),
        ("flags.md", flags::page()),
    ]
}

#[test]
fn the_committed_pages_are_what_the_code_says() {
    let writes = std::env::var_os("WRITE_REFERENCE").is_some();
    for (name, text) in pages() {
        let file = folder().join(name);
        if writes {
            fs::create_dir_all(folder()).expect("docs/ is writable");
            fs::write(&file, &text).expect("the page is writable");
        }
        let committed = fs::read_to_string(&file).unwrap_or_default();
        assert!(
            committed == text,
            "docs/reference/{name} is stale: run `make reference` and commit what it writes"
        );
    }
    let committed: BTreeSet<_> = fs::read_dir(folder())
        .expect("docs/reference/ is in the checkout")
        .map(|entry| entry.expect("it can be listed").file_name())
        .collect();
    let written = pages().map(|(name, _)| name.into());
    assert_eq!(committed, BTreeSet::from(written));
}
