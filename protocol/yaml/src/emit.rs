//! Writes values so that `PyYAML` reads them back exactly.

use serde_json::{Number, Value, json};

use crate::scalar::{self, Tag};

/// Longer keys need the `? key` form: `PyYAML` searches 1024 characters for the colon.
const LONGEST_KEY: usize = 1000;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Style {
    pub(crate) newline: &'static str,
    /// Whether a text of several lines is written as `|`: a comment below it, indented as deep, would be read as its text.
    pub(crate) literals: bool,
}

/// A value as a block-style document.
#[must_use]
pub fn to_yaml(value: &Value) -> String {
    block(
        value,
        0,
        Style {
            newline: "\n",
            literals: true,
        },
    )
}

/// The key of a marked value. A real document cannot contain it: it is not printable.
const AS_WRITTEN: &str = "\0written";

/// The text of a marked value.
pub(crate) fn as_written(value: &Value) -> Option<&str> {
    value.as_object()?.get(AS_WRITTEN)?.as_str()
}

/// Marks a value that only its text distinguishes from others.
pub(crate) fn marked(text: &str) -> Value {
    json!({ AS_WRITTEN: text })
}

/// The same for a scalar that JSON cannot represent.
pub(crate) fn written(tag: Tag, text: &str) -> Value {
    let name = match tag {
        _ if scalar::resolve(text) == tag => return marked(text),
        Tag::Int => "int",
        Tag::Float => "float",
        _ => "binary",
    };
    marked(&format!("!!{name} {}", quote(text)))
}

/// A string as a one-line scalar: plain where every YAML version reads it as that string, else in double quotes.
#[must_use]
pub fn quote(text: &str) -> String {
    scalar_text(text, false)
}

/// Lines for `value` at an indent; the first line is not indented, the last one ends in a line end.
pub(crate) fn block(value: &Value, indent: usize, style: Style) -> String {
    let parts: Vec<String> = match value {
        Value::Object(map) if !is_leaf(value) => {
            let entries = map.iter().map(|(k, v)| entry(k, v, indent, style));
            entries.collect()
        }
        Value::Array(items) if !items.is_empty() => {
            let items = items.iter().map(|v| item(v, indent + 2, style));
            items.map(|lines| format!("- {lines}")).collect()
        }
        single => vec![leaf(single, indent, style) + style.newline],
    };
    parts.join(&" ".repeat(indent))
}

/// `key: value` with its line end.
pub(crate) fn entry(key: &str, value: &Value, indent: usize, style: Style) -> String {
    let key = scalar_text(key, false);
    let mut out = if key.len() > LONGEST_KEY {
        format!("? {key}{}{}:", style.newline, " ".repeat(indent))
    } else {
        format!("{key}:")
    };
    if is_leaf(value) {
        out.push(' ');
        out.push_str(&leaf(value, indent, style));
        out.push_str(style.newline);
    } else {
        out.push_str(style.newline);
        pad(&mut out, indent + 2);
        out.push_str(&block(value, indent + 2, style));
    }
    out
}

/// The text after a dash; `indent` is the column of the content.
pub(crate) fn item(value: &Value, indent: usize, style: Style) -> String {
    if is_leaf(value) {
        leaf(value, indent.saturating_sub(2), style) + style.newline
    } else {
        block(value, indent, style)
    }
}

pub(crate) fn is_leaf(value: &Value) -> bool {
    match value {
        Value::Object(map) => map.is_empty() || as_written(value).is_some(),
        Value::Array(items) => items.is_empty(),
        _ => true,
    }
}

fn pad(out: &mut String, indent: usize) {
    out.extend(std::iter::repeat_n(' ', indent));
}

/// A leaf below a key or dash at an indent, without its last line end.
pub(crate) fn leaf(value: &Value, indent: usize, style: Style) -> String {
    match value {
        Value::String(text) => literal(text, indent + 2, style).unwrap_or_else(|| quote(text)),
        other => flow(other),
    }
}

/// A multi-line text as `|`, if that keeps every character.
fn literal(text: &str, indent: usize, style: Style) -> Option<String> {
    let (body, header) = match text.strip_suffix('\n') {
        Some(body) => (body, "|"),
        None => (text, "|-"),
    };
    let plain = style.literals
        && text.contains('\n')
        && !body.starts_with([' ', '\n', '\t'])
        && !body.ends_with('\n')
        && !body.is_empty()
        && body.chars().all(|c| c == '\n' || is_plain_char(c))
        && body
            .lines()
            .all(|line| line.is_empty() || !line.trim().is_empty());
    if !plain {
        return None;
    }
    let mut out = header.to_owned();
    for line in body.split('\n') {
        out.push_str(style.newline);
        if !line.is_empty() {
            pad(&mut out, indent);
            out.push_str(line);
        }
    }
    Some(out)
}

/// A value in one line.
pub(crate) fn flow(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(b) => b.to_string(),
        Value::Number(n) => number(n),
        Value::String(text) => scalar_text(text, true),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(flow).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Object(map) => {
            if let Some(text) = as_written(value) {
                return text.to_owned();
            }
            let entries: Vec<String> = map.iter().map(|(k, v)| flow_entry(k, v)).collect();
            format!("{{{}}}", entries.join(", "))
        }
    }
}

pub(crate) fn flow_entry(key: &str, value: &Value) -> String {
    let key = scalar_text(key, true);
    if key.len() > LONGEST_KEY {
        return format!("? {key} : {}", flow(value));
    }
    format!("{key}: {}", flow(value))
}

/// A number as a YAML 1.1 scalar: a float needs a point and its exponent a sign, since `1e300` is a string.
fn number(n: &Number) -> String {
    let text = n.to_string();
    let Some((mantissa, exponent)) = text.split_once(['e', 'E']) else {
        return text;
    };
    let point = if mantissa.contains('.') { "" } else { ".0" };
    let sign = if exponent.starts_with(['-', '+']) {
        ""
    } else {
        "+"
    };
    format!("{mantissa}{point}e{sign}{exponent}")
}

fn scalar_text(text: &str, flow: bool) -> String {
    if is_plain(text, flow) {
        text.to_owned()
    } else {
        double_quoted(text)
    }
}

fn is_plain_char(c: char) -> bool {
    matches!(c, '\u{20}'..='\u{7e}' | '\u{a0}'..='\u{fffd}' | '\u{10000}'..)
        && !matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}')
}

/// Whether a text needs no quotes: `PyYAML`, YAML 1.2 and Go read it as this string.
fn is_plain(text: &str, flow: bool) -> bool {
    let starts = match text.as_bytes() {
        [] => false,
        [b'-', second, ..] => *second != b' ' && !text.starts_with("---"),
        [first, ..] => !b"-?:,[]{}#&*!|>'\"%@`".contains(first) && !text.starts_with("..."),
    };
    let breaks = text.starts_with(' ')
        || text.ends_with([' ', ':'])
        || text.contains(": ")
        || text.contains(" #")
        || (flow && text.contains([',', '[', ']', '{', '}', ':', '?']));
    starts
        && !breaks
        && text.chars().all(is_plain_char)
        && scalar::resolve(text) == Tag::Str
        && !means_more_elsewhere(text)
}

/// Whether YAML 1.2 or Go's older parser reads a string of PyYAML as another type.
fn means_more_elsewhere(text: &str) -> bool {
    matches!(text, "y" | "Y" | "n" | "N")
        || text.parse::<f64>().is_ok()
        || text.trim_start_matches(['-', '+']).starts_with("0o")
}

fn double_quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            '\0' => out.push_str("\\0"),
            c if is_plain_char(c) => out.push(c),
            c if (c as u32) < 0x100 => out.push_str(&format!("\\x{:02x}", c as u32)),
            c => out.push_str(&format!("\\u{:04x}", c as u32)),
        }
    }
    out.push('"');
    out
}
