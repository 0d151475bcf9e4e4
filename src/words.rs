//! Words of others - AWS, the agent, the API server - on their way to people: into a status, an event, and from there to
//! somebody's terminal.

use std::borrow::Cow;

/// `text` without what a terminal obeys instead of showing it: on one line, in the order in which it is written.
#[must_use]
pub fn plain(text: &str) -> Cow<'_, str> {
    if text.chars().all(is_plain) {
        return Cow::Borrowed(text);
    }
    let plain = text.chars().filter_map(|c| match c {
        c if is_plain(c) => Some(c),
        // What parts words still does.
        '\t' | '\n' | '\u{2028}' | '\u{2029}' => Some(' '),
        _ => None,
    });
    Cow::Owned(plain.collect())
}

/// Whether it is neither a control character, nor breaks a line, nor changes the direction of others.
fn is_plain(c: char) -> bool {
    !c.is_control()
        && !matches!(
            c,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_moves_a_terminal_is_taken_out_and_words_stay_apart() {
        let said =
            "\n-ERROR-\r\nAvailable\tTrue \u{1b}[31mred\u{7} \u{202e}txt.exe\u{2066}\u{9b}2J";
        assert_eq!(plain(said), " -ERROR- Available True [31mred txt.exe2J");
    }

    #[test]
    fn other_scripts_are_words_too() {
        let said = "Sitzung für „Größe“ 已终止 שלום \u{200d}";
        assert!(matches!(plain(said), Cow::Borrowed(same) if same == said));
    }

    proptest! {
        #[test]
        fn nothing_but_plain_characters_is_left(text in "(\\PC|\\pC|[\u{2028}-\u{202e}\u{2066}-\u{2069}])*") {
            let once = plain(&text).into_owned();
            prop_assert!(once.chars().all(is_plain));
            prop_assert_eq!(plain(&once), once.as_str());
        }
    }
}
