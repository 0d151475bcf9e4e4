//! How a file looks from outside: its length, its place, its first line.

use crate::source::{report, root, sources};

/// Files above this are two things in one.
const LINES_MAX: usize = 400;

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
fn a_module_opens_with_what_it_holds() {
    report(
        "begin the file with `//!`: what it holds and what it promises",
        sources("src")
            .iter()
            .filter(|source| !source.text.starts_with("//! "))
            .map(|source| source.path.clone()),
    );
}
