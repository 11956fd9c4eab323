//! Refuses what `granit-parser` accepts and `PyYAML` refuses or reads differently.

use std::ops::Range;

use regex::Regex;

/// A pattern of `PyYAML`'s resolver that matches a whole word.
pub(crate) fn pattern(alternatives: &str) -> Regex {
    Regex::new(&format!("^(?:{alternatives})$")).expect("a pattern")
}

/// The first character that `PyYAML` refuses anywhere, or at which only `PyYAML` breaks a line.
pub(crate) fn bad_character(text: &str) -> Option<(usize, String)> {
    let start = if text.starts_with('\u{feff}') { 3 } else { 0 };
    text[start..].char_indices().find_map(|(i, c)| {
        let why = match c {
            '\t' | '\n' | '\r' | '\u{20}'..='\u{7e}' => return None,
            '\u{85}' | '\u{2028}' | '\u{2029}' => "ends a line in YAML 1.1",
            '\u{feff}' => "is a byte order mark in the middle of the text",
            '\u{a0}'..='\u{fffd}' | '\u{10000}'.. => return None,
            _ => "is not printable",
        };
        let code = c as u32;
        Some((
            start + i,
            format!("the character U+{code:04X} {why}: write it as an escape in double quotes"),
        ))
    })
}

/// The first tab that separates tokens: `PyYAML` accepts tabs only inside quoted scalars, block scalars and comments.
/// `allowed` is sorted.
pub(crate) fn bad_tab(text: &str, allowed: &[Range<usize>]) -> Option<usize> {
    let mut rest = allowed.iter().peekable();
    text.match_indices('\t').map(|(i, _)| i).find(|i| {
        while rest.peek().is_some_and(|r| r.end <= *i) {
            rest.next();
        }
        !rest.peek().is_some_and(|r| r.contains(i))
    })
}

/// Whether `PyYAML` accepts it as the name of an anchor.
pub(crate) fn is_anchor_name(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

/// The first directive that `PyYAML` might refuse, in the text before a document.
pub(crate) fn bad_directive(head: &str) -> Option<usize> {
    let mut at = 0;
    head.split_inclusive(['\n', '\r']).find_map(|line| {
        let start = at;
        at += line.len();
        let known = line.starts_with("%YAML ") || line.starts_with("%TAG ");
        (line.starts_with('%') && !known).then_some(start)
    })
}

/// A `...` before any document.
pub(crate) fn bad_end(text: &str) -> Option<usize> {
    let bom = if text.starts_with('\u{feff}') { 3 } else { 0 };
    let at = skip_trivia(text, bom);
    let rest = text[at..].strip_prefix("...")?;
    let ends = rest.is_empty() || rest.starts_with([' ', '\n', '\r']);
    ends.then_some(at)
}

/// The offset after blanks, line breaks and comments.
pub(crate) fn skip_trivia(text: &str, mut at: usize) -> usize {
    let bytes = text.as_bytes();
    while let Some(b) = bytes.get(at) {
        match b {
            b' ' | b'\t' | b'\n' | b'\r' => at += 1,
            b'#' => {
                at += bytes[at..]
                    .iter()
                    .take_while(|b| !matches!(b, b'\n' | b'\r'))
                    .count();
            }
            _ => break,
        }
    }
    at
}
