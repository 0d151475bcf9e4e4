//! A page in Markdown: its head, and tables whose cells hold any text.

/// A page with a title, what it is about, and what follows.
pub fn page(title: &str, about: &str, sections: &[String]) -> String {
    let mut text =
        format!("<!-- Written by `make reference` from the code. -->\n# {title}\n\n{about}\n");
    for section in sections {
        text.push('\n');
        text.push_str(section.trim_end());
        text.push('\n');
    }
    text
}

/// A table; every row has a cell for each column.
pub fn table<const COLUMNS: usize>(head: [&str; COLUMNS], rows: &[[String; COLUMNS]]) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let mut text = line(&head.map(str::to_owned)) + "|" + &"---|".repeat(COLUMNS) + "\n";
    for row in rows {
        let cells = row
            .each_ref()
            .map(|cell| one_line(cell).replace('|', "\\|"));
        text.push_str(&line(&cells));
    }
    text
}

pub fn code(text: &str) -> String {
    format!("`{text}`")
}

pub fn codes<T: AsRef<str>>(texts: impl IntoIterator<Item = T>) -> String {
    let texts = texts.into_iter().map(|text| code(text.as_ref()));
    texts.collect::<Vec<_>>().join(", ")
}

/// Prose of the code as Markdown: what looks like a tag or like emphasis, outside of code, is none.
pub fn prose(text: &str) -> String {
    let parts = text.split('`').enumerate();
    let parts = parts.map(|(at, part)| match at % 2 {
        0 => part
            .replace('<', "\\<")
            .replace('_', "\\_")
            .replace('*', "\\*"),
        _ => part.to_owned(),
    });
    parts.collect::<Vec<_>>().join("`")
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn cells_hold_any_text() {
    let row = [prose("`a<b>` or <c>_"), code("x || y\nz")];
    assert_eq!(
        table(["One", "Two"], &[row]),
        "| One | Two |\n|---|---|\n| `a<b>` or \\<c>\\_ | `x \\|\\| y z` |\n"
    );
}
