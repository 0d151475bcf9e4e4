//! Names say what a thing is.

use crate::source::{report, sources, stem};
use crate::text::{is_word, tokens};

/// Words that say nothing about what a thing is.
const EMPTY_WORDS: &[&str] = &["manager", "managers", "helper", "helpers", "util", "utils"];

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

// The rule can fail: each of its parts, on code made up for it.

#[test]
fn type_names_are_read_word_by_word() {
    assert_eq!(
        type_names("pub struct A<T>(T); enum LeaseManager {}"),
        ["A", "LeaseManager"]
    );
    assert_eq!(camel_words("LeaseManager"), ["lease", "manager"]);
    assert_eq!(camel_words("Utilization"), ["utilization"]);
}
