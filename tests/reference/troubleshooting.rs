//! What `docs/troubleshooting.md` says: its sections, and the rows of their tables.

use std::collections::BTreeMap;
use std::fs;

/// A section of the page.
pub struct Section {
    /// Its heading, as it is written.
    pub heading: String,
    /// Each row of its tables, by the one name between backticks in the row's first cell.
    pub rows: BTreeMap<String, Row>,
}

/// What is said of a name; a cell that is not there is empty.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Row {
    pub meaning: String,
    pub what_to_do: String,
}

/// The section whose heading begins so.
///
/// # Panics
/// When the page has none.
pub fn section(begins: &str) -> Section {
    let path = crate::root().join("docs/troubleshooting.md");
    let text = fs::read_to_string(path).expect("it is in the checkout");
    sections(&text)
        .into_iter()
        .find(|section| section.heading.starts_with(begins))
        .unwrap_or_else(|| panic!("docs/troubleshooting.md has no section `## {begins}…`"))
}

fn sections(text: &str) -> Vec<Section> {
    let parts = text.split("\n## ").skip(1);
    let section = |part: &str| {
        let (heading, body) = part.split_once('\n').unwrap_or((part, ""));
        let rows = body.lines().filter_map(|line| {
            let cells = line.strip_prefix('|')?.strip_suffix('|')?;
            let mut cells = cells.split('|').map(|cell| cell.trim().to_owned());
            let name = cells.next()?;
            let [_, name, _] = name.split('`').collect::<Vec<_>>()[..] else {
                return None;
            };
            let row = Row {
                meaning: cells.next().unwrap_or_default(),
                what_to_do: cells.next().unwrap_or_default(),
            };
            Some((name.to_owned(), row))
        });
        Section {
            heading: heading.to_owned(),
            rows: rows.collect(),
        }
    };
    parts.map(section).collect()
}

impl Section {
    /// Fails unless the rows are these, no more and no less, and each has a meaning and what to do.
    pub fn assert_names<'a>(&self, names: impl IntoIterator<Item = &'a str>) {
        let mut said: Vec<_> = self.rows.keys().map(String::as_str).collect();
        let mut known: Vec<_> = names.into_iter().collect();
        said.sort_unstable();
        known.sort_unstable();
        assert_eq!(
            said, known,
            "docs/troubleshooting.md, `## {}`: left, what it has rows for; right, what the code knows",
            self.heading
        );
        for (name, row) in &self.rows {
            assert!(
                !row.meaning.is_empty() && !row.what_to_do.is_empty(),
                "docs/troubleshooting.md, `## {}`: the row of {name} has an empty cell",
                self.heading
            );
        }
    }

    /// A link to it from `docs/reference`.
    pub fn link(&self, words: &str) -> String {
        let kept = self.heading.to_lowercase();
        let kept = kept.chars().filter(|c| c.is_alphanumeric() || *c == ' ');
        let anchor = kept.collect::<String>().replace(' ', "-");
        format!("[{words}](../troubleshooting.md#{anchor})")
    }
}

#[test]
fn rows_are_found_by_their_name_and_sections_by_their_heading() {
    let text = "# Page\n\n## `Up`: is it?\n\n| Reason | Meaning | What to do |\n|---|---|---|\n| `A` | it is | b |\n| Warning `B` | no | |\n| `C` or `D` | - | - |\n";
    let [section]: [Section; 1] = sections(text).try_into().ok().expect("one section");
    assert_eq!(section.heading, "`Up`: is it?");
    let row = |name: &str, meaning: &str, what_to_do: &str| {
        let (meaning, what_to_do) = (meaning.to_owned(), what_to_do.to_owned());
        let row = Row {
            meaning,
            what_to_do,
        };
        (name.to_owned(), row)
    };
    let rows = [row("A", "it is", "b"), row("B", "no", "")];
    assert_eq!(section.rows, BTreeMap::from(rows));
    assert_eq!(section.link("x"), "[x](../troubleshooting.md#up-is-it)");
}

#[test]
#[should_panic(expected = "the row of B has an empty cell")]
fn a_row_that_does_not_say_what_to_do_is_refused() {
    let text = "\n## Ends\n| `A` | it is | b |\n| `B` | no | |\n";
    sections(text)[0].assert_names(["A", "B"]);
}
