//! Rust as text: its words, and what is no code in it.

/// Words, `::`, and every other character by itself.
pub fn tokens(code: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut rest = code.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = if is_word_char(first) {
            rest.find(|c| !is_word_char(c)).unwrap_or(rest.len())
        } else if rest.starts_with("::") {
            2
        } else {
            first.len_utf8()
        };
        let (token, after) = rest.split_at(length);
        found.push(token);
        rest = after.trim_start();
    }
    found
}

pub fn is_word(token: &str) -> bool {
    token.starts_with(is_word_char)
}

pub fn is_word_char(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The code with its `#[cfg(test)]` items blanked, on the same lines.
pub fn without_tests(code: &str) -> String {
    let mut kept = code.to_owned();
    while let Some(start) = kept.find("#[cfg(test)]") {
        let mut depth = 0_usize;
        let mut end = kept.len();
        for (at, c) in kept[start..].char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth = depth.saturating_sub(1),
                _ => {}
            }
            if depth == 0 && matches!(c, '}' | ';') {
                end = start + at + 1;
                break;
            }
        }
        let blank = blanked(&kept[start..end]);
        kept.replace_range(start..end, &blank);
    }
    kept
}

/// The text with comments and the insides of literals blanked, on the same lines.
pub fn code_of(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let joined = code.ends_with(is_word_char);
        let (kept, blank) = match first {
            '/' if rest.starts_with("//") => (0, rest.find('\n').unwrap_or(rest.len())),
            '/' if rest.starts_with("/*") => (0, block_comment_length(rest)),
            '"' => (0, string_length(rest)),
            '\'' => (0, char_length(rest).unwrap_or(0)),
            'r' if !joined => (0, raw_string_length(rest).unwrap_or(0)),
            'b' if !joined && rest.starts_with("br") => (
                0,
                raw_string_length(&rest[1..]).map_or(0, |length| length + 1),
            ),
            _ => (first.len_utf8(), 0),
        };
        // What begins like a literal and is none (a lifetime, a word) stays as it is.
        let kept = if blank == 0 {
            kept.max(first.len_utf8())
        } else {
            kept
        };
        code.push_str(&rest[..kept]);
        code.push_str(&blanked(&rest[kept..kept + blank]));
        rest = &rest[kept + blank..];
    }
    code
}

fn blanked(text: &str) -> String {
    text.chars()
        .map(|c| if c == '\n' { '\n' } else { ' ' })
        .collect()
}

fn block_comment_length(text: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < text.len() {
        if text[at..].starts_with("/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if text[at..].starts_with("*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

fn string_length(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

fn raw_string_length(text: &str) -> Option<usize> {
    let hashes = text[1..].chars().take_while(|c| *c == '#').count();
    let body = text[1 + hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    Some(2 + hashes + body.find(&end).map_or(body.len(), |at| at + end.len()))
}

/// The length of a character literal; none for a lifetime.
fn char_length(text: &str) -> Option<usize> {
    let mut chars = text.char_indices().skip(1);
    let (_, first) = chars.next()?;
    if first == '\\' {
        chars.next()?;
        return chars.find(|(_, c)| *c == '\'').map(|(at, _)| at + 1);
    }
    let (at, second) = chars.next()?;
    (second == '\'').then_some(at + 1)
}

// The rule can fail: each of its parts, on code made up for it.

#[test]
fn comments_and_literals_are_not_code() {
    let text =
        "a // crate::relay\n/* b /* c */ d */ e \"f \\\" g\" r#\"h \" i\"# 'j' '\\'' '\\u{2a}' 'k";
    assert_eq!(tokens(&code_of(text)), ["a", "e", "'", "k"]);
    assert_eq!(code_of(text).lines().count(), text.lines().count());
    assert_eq!(
        tokens(&code_of("for rest in brief { br\"x\" b\"y\" }")).len(),
        7
    );
}

#[test]
fn tests_inside_a_file_are_left_out() {
    let code =
        "a();\n#[cfg(test)]\nmod tests {\n fn f() { b(); }\n}\nc();\n#[cfg(test)]\nmod t;\nd();";
    assert_eq!(tokens(&without_tests(code)).concat(), "a();c();d();");
    assert_eq!(without_tests(code).lines().count(), code.lines().count());
}
