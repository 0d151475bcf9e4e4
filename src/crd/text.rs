//! Bounds the words of others before they go into a status: AWS, the agent and the API server may say much.

use std::borrow::Cow;

use super::limit::WORDS_CHARS_MAX;
use crate::words::plain;

/// Longest text that a status carries, in characters.
pub const TEXT_CHARS_MAX: usize = WORDS_CHARS_MAX as usize;

/// Stands at the end of a text that was cut.
const CUT: &str = " (cut)";

/// `text` on one line, or its beginning and the note that it was cut, [`TEXT_CHARS_MAX`] characters at most.
#[must_use]
pub fn cut(text: &str) -> Cow<'_, str> {
    let text = plain(text);
    if text.chars().nth(TEXT_CHARS_MAX).is_none() {
        return text;
    }
    let kept: String = text.chars().take(TEXT_CHARS_MAX - CUT.len()).collect();
    Cow::Owned(kept + CUT)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_text_that_fits_stays_as_it_is() {
        let text = "é".repeat(TEXT_CHARS_MAX);
        assert_eq!(cut(&text), text);
    }

    #[test]
    fn a_long_text_is_cut_between_characters_and_says_so() {
        let text = "é".repeat(TEXT_CHARS_MAX + 1);
        let cut = cut(&text);
        assert_eq!(cut.chars().count(), TEXT_CHARS_MAX);
        assert!(cut.ends_with("é (cut)"), "{cut}");
    }

    proptest! {
        #[test]
        fn a_status_has_no_text_of_several_lines(text in any::<String>(), times in 1..100_usize) {
            let text = text.repeat(times);
            let cut = cut(&text);
            prop_assert!(cut.chars().count() <= TEXT_CHARS_MAX);
            prop_assert!(!cut.chars().any(char::is_control));
        }
    }
}
