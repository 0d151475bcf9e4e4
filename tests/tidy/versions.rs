//! What is said in several places about versions: each says the same, and none calls unreleased what is released.

use std::fs;
use std::path::Path;

use crate::links::is_page;
use crate::source::{report, root};

/// Where people read of versions, and machines are told them. Not the changelog, which is about the past.
const FOLDERS: [&str; 6] = [
    ".ci",
    ".github",
    "charts",
    "docs",
    "examples",
    "tests/control-plane",
];

/// What pages say until there is a release.
const UNRELEASED: &str = "nothing is released yet";

/// A version, and what stands before it wherever it is said.
struct Version {
    number: String,
    after: &'static [&'static str],
}

fn versions() -> [Version; 6] {
    let read = |file: &str, after: &str| {
        let text = fs::read_to_string(root().join(file)).expect("it is in the checkout");
        let numbers = said(&text, after);
        numbers.into_iter().next().expect("it says a version")
    };
    let planes = "tests/control-plane/assets/go.mod";
    [
        Version {
            number: env!("CARGO_PKG_VERSION").to_owned(),
            after: &[
                "ssm-session-operator:",
                "tag: \"",
                "targetRevision: v",
                "for version ",
            ],
        },
        Version {
            number: env!("CARGO_PKG_RUST_VERSION").to_owned(),
            after: &["Rust ", "rust:", "toolchain install ", "rustup default "],
        },
        Version {
            number: minor(&read(planes, " go ")),
            after: &["Go ", "go-version: \""],
        },
        Version {
            number: minor(&read(planes, "k8s.io/kubernetes v")),
            after: &["ested with Kubernetes "],
        },
        Version {
            number: minor(&read(
                "tests/control-plane/helm/go.mod",
                "helm.sh/helm/v4 v",
            )),
            after: &["and Helm "],
        },
        Version {
            number: minor(&read(
                "charts/ssm-session-operator/Chart.yaml",
                "kubeVersion: \">=",
            )),
            after: &["the API of Kubernetes "],
        },
    ]
}

#[test]
fn a_version_is_the_same_wherever_it_is_said() {
    let pages = pages();
    let mut wrong = Vec::new();
    for Version { number, after } in versions() {
        for after in after {
            let mut places = 0;
            for (page, text) in &pages {
                for other in said(text, after) {
                    places += 1;
                    if other != number {
                        wrong.push(format!("{page}: {after}{other}, and it is {number}"));
                    }
                }
            }
            if places == 0 {
                wrong.push(format!("nowhere: {after}{number}"));
            }
        }
    }
    report(
        "say the version of Cargo.toml, Chart.yaml or go.mod in all places, or mend this list of what stands before it",
        wrong,
    );
}

#[test]
fn nothing_is_called_unreleased_once_something_is_released() {
    let changelog = fs::read_to_string(root().join("CHANGELOG.md"));
    let is_released = has_release(&changelog.expect("it is in the checkout"));
    let pages = pages();
    let saying = pages.iter().filter(|(_, text)| says_unreleased(text));
    let saying: Vec<_> = saying.map(|(page, _)| page.clone()).collect();
    assert!(
        is_released || !saying.is_empty(),
        "no page says {UNRELEASED:?}: these are no longer the words"
    );
    report(
        "the changelog has a release: say where it is, and how it is installed",
        saying.into_iter().filter(|_| is_released),
    );
}

/// The files of the folders and those beside them, by path, and what they say.
fn pages() -> Vec<(String, String)> {
    let mut pages = Vec::new();
    for folder in FOLDERS {
        collect(&root().join(folder), true, &mut pages);
    }
    collect(root(), false, &mut pages);
    assert!(pages.len() > 50, "only {} were found", pages.len());
    pages
}

fn collect(folder: &Path, deep: bool, pages: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(folder).expect("a folder of the checkout") {
        let path = entry.expect("it can be listed").path();
        let name = path.strip_prefix(root()).unwrap_or(&path);
        let name = name.display().to_string();
        let is_read = deep || name == "Dockerfile" || is_page(&path);
        if path.is_dir() {
            if deep {
                collect(&path, deep, pages);
            }
        } else if is_read && name != "CHANGELOG.md" && !name.ends_with("go.sum") {
            let text = fs::read_to_string(&path).expect("text");
            pages.push((name, text));
        }
    }
}

/// The versions that stand after these words, also on the next line.
fn said(text: &str, after: &str) -> Vec<String> {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let rests = text.split(after).skip(1);
    rests
        .map(number)
        .filter(|number| !number.is_empty())
        .collect()
}

/// The number with which a text begins, such as 1.95 of `1.95-alpine`; nothing if there is none.
fn number(text: &str) -> String {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.');
    text[..end.unwrap_or(text.len())]
        .trim_end_matches('.')
        .to_owned()
}

/// 1.36 of 1.36.2.
fn minor(number: &str) -> String {
    let parts: Vec<_> = number.split('.').take(2).collect();
    parts.join(".")
}

fn has_release(changelog: &str) -> bool {
    let headings = changelog
        .lines()
        .filter_map(|line| line.strip_prefix("## "));
    headings
        .into_iter()
        .any(|heading| !number(heading).is_empty())
}

fn says_unreleased(text: &str) -> bool {
    let words: Vec<_> = text.split_whitespace().collect();
    words.join(" ").to_lowercase().contains(UNRELEASED)
}

// The rules can fail: each of their parts, on text made up for it.

#[test]
fn versions_are_read_after_their_words() {
    let text = "Rust 1.95, rust:1.94-alpine, Rust\n1.9. Rust is\nimage:v1.2.3";
    assert_eq!(said(text, "Rust "), ["1.95", "1.9"]);
    assert_eq!(said(text, "rust:"), ["1.94"]);
    assert_eq!(said(text, "image:v"), ["1.2.3"]);
    assert_eq!(minor("1.36.2"), "1.36");
}

#[test]
fn a_release_is_a_heading_of_the_changelog() {
    assert!(!has_release("# Changelog\n\n## Unreleased\n"));
    assert!(has_release("## Unreleased\n\n## 0.1.0 (2026-12-01)\n"));
    assert!(says_unreleased(
        "an image, since nothing is\nreleased yet. Two"
    ));
    assert!(!says_unreleased("nothing is left"));
}
