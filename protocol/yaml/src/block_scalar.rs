//! Where a `|` or `>` scalar starts and ends, and what `PyYAML` reads in it at the end of a text.

use std::ops::Range;

/// Span (from the header to the last line) and value of a block scalar. From the parser: `raw` is its content, `text` its
/// value, `indent` the indent of its content.
pub(crate) fn read(
    source: &str,
    raw: Range<usize>,
    text: &str,
    indent: usize,
) -> Result<(Range<usize>, String), &'static str> {
    if indent == 0 && !text.trim_matches('\n').is_empty() {
        return Err("the text of a block scalar must be indented");
    }
    let last = source.rsplit(['\n', '\r']).next().unwrap_or_default();
    let at_end = raw.end == source.len() && !last.is_empty();
    if at_end && text.trim().is_empty() && last.trim_start_matches(' ').is_empty() {
        return Err("blanks after an empty block scalar");
    }
    let header = header(source, &raw, text).ok_or("this block scalar has no header")?;
    // A last line without its line end: PyYAML adds none to the value.
    let cut = at_end && (!last.trim_start_matches(' ').is_empty() || last.len() > indent);
    let value = text.strip_suffix('\n').filter(|_| cut).unwrap_or(text);
    let keep = source[header.clone()].contains('+');
    let end = content_end(source, header.end.max(raw.start)..raw.end, keep);
    Ok((header.start..end.max(header.end), value.to_owned()))
}

/// The `|` or `>` with its indicators, found backwards from the content.
fn header(source: &str, raw: &Range<usize>, text: &str) -> Option<Range<usize>> {
    // Without content, at the very end of a text, the parser points at the header itself.
    if text.is_empty() && source.get(raw.clone())?.starts_with(['|', '>']) {
        return header_in(source, raw.start);
    }
    let before = source.get(..raw.start)?.trim_end();
    header_in(source, before.rfind(['\n', '\r']).map_or(0, |i| i + 1))
}

/// The first word of a line, from `at` on, that can be a header.
fn header_in(source: &str, at: usize) -> Option<Range<usize>> {
    let rest = &source[at..];
    let line = &rest[..rest.find(['\n', '\r']).unwrap_or(rest.len())];
    line.match_indices(['|', '>']).find_map(|(i, _)| {
        let starts = i == 0 || line[..i].ends_with([' ', '\u{feff}']);
        let tail =
            line[i + 1..].trim_start_matches(|c: char| c.is_ascii_digit() || "+-".contains(c));
        let words = tail.trim_start_matches(' ');
        let ends = words.is_empty() || (words.starts_with('#') && words.len() < tail.len());
        let end = at + line.len() - tail.len();
        (starts && ends).then_some(at + i..end)
    })
}

/// The end of the last line of the value; blank lines belong to it only with `+`.
fn content_end(source: &str, raw: Range<usize>, keep: bool) -> usize {
    let Some(content) = source.get(raw.clone()) else {
        return raw.start;
    };
    let lines = content.trim_end_matches(' ');
    let kept = match keep {
        true => lines
            .strip_suffix('\n')
            .map_or(lines, |l| l.strip_suffix('\r').unwrap_or(l)),
        false => {
            let words = content.trim_end_matches([' ', '\n', '\r']);
            // Blanks at the end of the last line are text.
            let rest = &content[words.len()..];
            &content[..words.len() + rest.find(['\n', '\r']).unwrap_or(rest.len())]
        }
    };
    raw.start + kept.len()
}
