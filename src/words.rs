//! Words of others - AWS, the agent, the API server - on their way to people: into a status, an event, and from there to
//! somebody's terminal.

use std::borrow::Cow;
use std::error::Error;

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

/// An error with its causes, outermost first.
#[must_use]
pub fn with_causes(error: &(dyn Error + 'static)) -> String {
    told_once(levels(error).map(ToString::to_string))
}

/// An error and its causes, outermost first.
pub fn levels<'a>(
    error: &'a (dyn Error + 'static),
) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&level| level.source())
}

/// The words of an error's levels, outermost first. Some repeat what caused them: what was told is not told again.
#[must_use]
pub fn told_once(levels: impl IntoIterator<Item = String>) -> String {
    let mut text = String::new();
    for level in levels {
        if !text.contains(&level) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&level);
        }
    }
    text
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

    #[derive(Debug, thiserror::Error)]
    #[error("{words}")]
    struct Level {
        words: &'static str,
        source: Option<Box<Level>>,
    }

    #[test]
    fn an_error_is_told_with_its_causes_and_none_of_them_twice() {
        let told = |levels: &[&'static str]| {
            let caused = |source, words: &&'static str| Some(Box::new(Level { words, source }));
            let error = levels.iter().rev().fold(None, caused).expect("levels");
            with_causes(error.as_ref())
        };
        assert_eq!(told(&["no"]), "no");
        let each = ["request failed", "connect: refused", "refused"];
        assert_eq!(told(&each), "request failed: connect: refused");
        assert_eq!(told(&["a: b: c", "", "b: c", "c", "d"]), "a: b: c: d");
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
