//! What `docs/troubleshooting.md` says: its sections, and the rows of their tables.

use std::collections::BTreeMap;
use std::fs;

/// A section of the page.
pub struct Section {
    /// Its heading, as it is written.
    pub heading: String,
    /// The meaning in each row of its tables, by the one name between backticks in the row's first cell.
    pub rows: BTreeMap<String, String>,
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
            let mut cells = line.strip_prefix("| ")?.split(" | ");
            let [_, named, _] = cells.next()?.split('`').collect::<Vec<_>>()[..] else {
                return None;
            };
            let meaning = cells.next()?.trim_end_matches(" |");
            Some((named.to_owned(), meaning.to_owned()))
        });
        Section {
            heading: heading.to_owned(),
            rows: rows.collect(),
        }
    };
    parts.map(section).collect()
}

impl Section {
    /// Fails unless the rows are these, no more and no less.
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
    let text = "# Page\n\n## `Up`: is it?\n\n| Reason | Meaning | Do |\n|---|---|---|\n| `A` | it is | b |\n| Warning `B` | no |\n| `C` or `D` | - |\n";
    let [section]: [Section; 1] = sections(text).try_into().ok().expect("one section");
    assert_eq!(section.heading, "`Up`: is it?");
    let rows = [("A", "it is"), ("B", "no")].map(|(a, b)| (a.to_owned(), b.to_owned()));
    assert_eq!(section.rows, BTreeMap::from(rows));
    assert_eq!(section.link("x"), "[x](../troubleshooting.md#up-is-it)");
}
