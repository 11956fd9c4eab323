//! Changes to byte ranges of a text, applied together.

use std::ops::Range;

/// One change. Insertions at the same offset keep their order.
#[derive(Debug)]
pub(crate) struct Splice {
    pub(crate) range: Range<usize>,
    pub(crate) text: String,
    /// Whole lines: they start on a new line even if the text before has no line end.
    pub(crate) lines: bool,
}

/// Applies the changes. `Err` is the offset at which two of them overlap.
pub(crate) fn apply(text: &str, mut splices: Vec<Splice>, newline: &str) -> Result<String, usize> {
    splices.sort_by_key(|s| (s.range.start, !s.range.is_empty()));
    let mut out = String::with_capacity(text.len() + 256);
    let mut at = 0;
    for splice in splices {
        let kept = text.get(at..splice.range.start).ok_or(at)?;
        out.push_str(kept);
        let open = !out.is_empty() && !out.ends_with(['\n', '\r', '\u{feff}']);
        if splice.lines && !splice.text.is_empty() && open {
            out.push_str(newline);
        }
        out.push_str(&splice.text);
        at = splice.range.end;
    }
    out.push_str(text.get(at..).ok_or(at)?);
    Ok(out)
}

/// The start of the line that `at` is on.
pub(crate) fn line_start(text: &str, at: usize) -> usize {
    let start = text[..at].rfind(['\n', '\r']).map_or(0, |i| i + 1);
    if start == 0 && text.starts_with('\u{feff}') {
        return '\u{feff}'.len_utf8().min(at);
    }
    start
}

/// The end of the line that `at` is on, before its line end.
pub(crate) fn line_end(text: &str, at: usize) -> usize {
    text[at..].find(['\n', '\r']).map_or(text.len(), |i| at + i)
}

/// The start of the line after the one that `at` is on.
pub(crate) fn next_line(text: &str, at: usize) -> usize {
    let end = line_end(text, at);
    let rest = &text.as_bytes()[end..];
    end + match rest {
        [b'\r', b'\n', ..] => 2,
        [] => 0,
        _ => 1,
    }
}

/// The distance of `at` from the start of its line, in characters.
pub(crate) fn column(text: &str, at: usize) -> usize {
    text[line_start(text, at)..at].chars().count()
}

pub(crate) fn newline_of(text: &str) -> &'static str {
    match text.find(['\n', '\r']).map(|i| &text.as_bytes()[i..]) {
        Some([b'\r', b'\n', ..]) => "\r\n",
        Some([b'\r', ..]) => "\r",
        _ => "\n",
    }
}
