//! The sources that the rules are held over, and how an offence is reported.

use std::fs;
use std::path::{Path, PathBuf};

use crate::text::{code_of, is_word, is_word_char};

/// A Rust file: where it is, its text, and its text without comments and literals.
pub struct Source {
    pub path: String,
    pub text: String,
    pub code: String,
}

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The Rust files below a folder of the checkout, by path; none when there is no such folder.
pub fn sources(folder: &str) -> Vec<Source> {
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

pub fn everywhere() -> Vec<Source> {
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
pub fn report(mend: &str, offenders: impl IntoIterator<Item = String>) {
    let offenders: Vec<_> = offenders.into_iter().collect();
    assert!(
        offenders.is_empty(),
        "\n  {}\nTo mend it: {mend}.\n",
        offenders.join("\n  ")
    );
}

pub fn stem(path: &str) -> &str {
    path.rsplit('/')
        .next()
        .unwrap_or(path)
        .trim_end_matches(".rs")
}

/// The lines on which one of the words stands, as words of their own.
pub fn mentions(source: &Source, code: &str, banned: &[&str]) -> Vec<String> {
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

// The rule can fail: each of its parts, on code made up for it.

#[test]
fn a_word_is_found_only_as_a_word() {
    assert!(has_word("x.unwrap();", ".unwrap()"));
    assert!(has_word("tokio::spawn(f)", "spawn"));
    assert!(!has_word("respawned", "spawn"));
    assert!(!has_word("mykube::x", "kube::"));
    assert!(!has_word("x.unwrap_or(1)", ".unwrap()"));
}
