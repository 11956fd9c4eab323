//! What a plain word means to `PyYAML`: its implicit resolvers and constructors, YAML 1.1.

use serde_json::Number;

use crate::timestamp::{is_real_time, is_timestamp};

/// The type that `PyYAML`'s resolver gives a plain scalar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tag {
    Null,
    Bool,
    Int,
    Float,
    Timestamp,
    /// `<<`, a key only.
    Merge,
    /// `=`, which `PyYAML` knows and cannot construct.
    Value,
    Str,
    /// `!!binary`, never resolved from a plain word.
    Binary,
}

/// What the constructor makes of it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Data {
    Null,
    Bool(bool),
    Number(Number),
    /// A date or a point in time; kept as it was written.
    Timestamp,
    /// What JSON has no form for; kept as it was written. Its type, and the nearest number.
    Odd(Tag, Option<Number>),
    Merge,
    Str,
}

/// Why a scalar has no value.
#[derive(Debug, PartialEq)]
pub(crate) enum Unread {
    /// `PyYAML` cannot read it either.
    Wrong(String),
    /// It can, and JSON has no form for it but perhaps this number.
    Beyond(String, Option<Number>),
}

impl From<String> for Unread {
    fn from(why: String) -> Unread {
        Unread::Wrong(why)
    }
}

/// What `!!` stands for.
pub(crate) const CORE: &str = "tag:yaml.org,2002:";

/// The type that an explicit tag asks for, if a config can have it.
pub(crate) fn named(handle: &str, suffix: &str) -> Option<Tag> {
    match suffix {
        _ if handle != CORE => None,
        "str" => Some(Tag::Str),
        "int" => Some(Tag::Int),
        "float" => Some(Tag::Float),
        "bool" => Some(Tag::Bool),
        "null" => Some(Tag::Null),
        "timestamp" => Some(Tag::Timestamp),
        "binary" => Some(Tag::Binary),
        _ => None,
    }
}

pub(crate) fn resolve(text: &str) -> Tag {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Tag::Null,
        "<<" => Tag::Merge,
        "=" => Tag::Value,
        _ if bool_of(text).is_some() => Tag::Bool,
        _ if is_float(text) => Tag::Float,
        _ if is_int(text) => Tag::Int,
        _ if is_timestamp(text) => Tag::Timestamp,
        _ => Tag::Str,
    }
}

/// The value of a scalar with that tag, or why `PyYAML` or JSON cannot have it.
pub(crate) fn construct(tag: Tag, text: &str) -> Result<Data, Unread> {
    match tag {
        Tag::Null => Ok(Data::Null),
        Tag::Str => Ok(Data::Str),
        Tag::Merge => Ok(Data::Merge),
        Tag::Value => {
            let why = "`=` has a meaning of its own in YAML 1.1: quote it";
            Err(Unread::Wrong(why.into()))
        }
        Tag::Bool => Ok(Data::Bool(construct_bool(text)?)),
        Tag::Int => int_of(text).map(Data::Number),
        Tag::Float => float_of(text).map(Data::Number),
        Tag::Timestamp if is_real_time(text) => Ok(Data::Timestamp),
        Tag::Timestamp => {
            let why = format!("`{text}` looks like a date and is none: quote it");
            Err(Unread::Wrong(why))
        }
        Tag::Binary if is_base64(text) => Err(Unread::Beyond(
            "`!!binary` is bytes, and JSON has none".into(),
            None,
        )),
        Tag::Binary => Err(Unread::Wrong("`!!binary` that is no base64".into())),
    }
}

/// As Python's decoder takes it: what is not of the alphabet is passed over.
fn is_base64(text: &str) -> bool {
    let is_data = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/');
    let count = text.bytes().filter(is_data).count();
    let padding = text.bytes().filter(|b| *b == b'=').count();
    text.is_ascii() && count % 4 != 1 && padding >= (4 - count % 4) % 4
}

fn bool_of(text: &str) -> Option<bool> {
    match text {
        "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => Some(true),
        "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => Some(false),
        _ => None,
    }
}

fn construct_bool(text: &str) -> Result<bool, String> {
    match text.to_lowercase().as_str() {
        "yes" | "true" | "on" => Ok(true),
        "no" | "false" | "off" => Ok(false),
        _ => Err(format!("`{text}` is not a boolean")),
    }
}

fn unsigned(text: &str) -> &str {
    text.strip_prefix(['-', '+']).unwrap_or(text)
}

fn only(text: &str, allowed: impl Fn(u8) -> bool) -> bool {
    text.bytes().all(|b| b == b'_' || allowed(b))
}

/// `[0-9][0-9_]*`
fn is_decimal(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit()) && only(text, |b| b.is_ascii_digit())
}

/// `(?::[0-5]?[0-9])+`, given without the first colon.
fn is_sexagesimal_tail(tail: &str) -> bool {
    tail.split(':').all(|part| match part.as_bytes() {
        [b] => b.is_ascii_digit(),
        [a, b] => (b'0'..=b'5').contains(a) && b.is_ascii_digit(),
        _ => false,
    })
}

fn is_int(text: &str) -> bool {
    let text = unsigned(text);
    if let Some(bits) = text.strip_prefix("0b") {
        return !bits.is_empty() && only(bits, |b| matches!(b, b'0' | b'1'));
    }
    if let Some(hex) = text.strip_prefix("0x") {
        return !hex.is_empty() && only(hex, |b| b.is_ascii_hexdigit());
    }
    if let Some(octal) = text.strip_prefix('0') {
        return only(octal, |b| (b'0'..=b'7').contains(&b));
    }
    match text.split_once(':') {
        Some((head, tail)) => is_decimal(head) && is_sexagesimal_tail(tail),
        None => is_decimal(text),
    }
}

/// `(?:[eE][-+][0-9]+)?`
fn is_exponent(text: &str) -> bool {
    let digits = text
        .strip_prefix(['e', 'E'])
        .and_then(|t| t.strip_prefix(['-', '+']));
    text.is_empty()
        || digits.is_some_and(|d| !d.is_empty() && d.bytes().all(|b| b.is_ascii_digit()))
}

fn is_float(text: &str) -> bool {
    if matches!(text, ".nan" | ".NaN" | ".NAN") {
        return true;
    }
    let body = unsigned(text);
    if matches!(body, ".inf" | ".Inf" | ".INF") {
        return true;
    }
    let Some((whole, rest)) = body.split_once('.') else {
        return false;
    };
    let end = rest
        .find(|c: char| !(c.is_ascii_digit() || c == '_'))
        .unwrap_or(rest.len());
    let (fraction, exponent) = rest.split_at(end);
    if whole.is_empty() {
        // YAML 1.1 in PyYAML: no sign before a bare point.
        return body == text && is_decimal(fraction) && is_exponent(exponent);
    }
    match whole.split_once(':') {
        Some((head, tail)) => is_decimal(head) && is_sexagesimal_tail(tail) && exponent.is_empty(),
        None => is_decimal(whole) && is_exponent(exponent),
    }
}

fn int_of(text: &str) -> Result<Number, Unread> {
    let refused = || Unread::Wrong(format!("`{text}` is not an integer that PyYAML can read"));
    let plain = text.replace('_', "");
    let body = unsigned(&plain);
    if body.is_empty() {
        return Err(refused());
    }
    let (digits, radix) = match body {
        "0" => ("0", 10),
        b if b.starts_with("0b") => (&b[2..], 2),
        b if b.starts_with("0x") => (&b[2..], 16),
        b if b.starts_with('0') => (b, 8),
        b => (b, 10),
    };
    let parts = || digits.split(':');
    if !parts().all(|p| !p.is_empty() && p.chars().all(|c| c.is_digit(radix))) {
        return Err(refused());
    }
    let negative = plain.starts_with('-');
    let too_large = || too_large(text, digits, radix, negative);
    let mut total: i128 = 0;
    let base = if digits.contains(':') { 60 } else { 0 };
    for part in parts() {
        total = i128::from_str_radix(part, radix)
            .ok()
            .and_then(|n| total.checked_mul(base)?.checked_add(n))
            .ok_or_else(too_large)?;
    }
    if negative {
        total = -total;
    }
    i64::try_from(total)
        .map(Number::from)
        .or_else(|_| u64::try_from(total).map(Number::from))
        .map_err(|_| too_large())
}

fn too_large(text: &str, digits: &str, radix: u32, negative: bool) -> Unread {
    let message = format!("the integer `{text}` does not fit into 64 bits");
    let near = digits.split(':').fold(0.0, |total, part| {
        let digits = part.chars().filter_map(|c| c.to_digit(radix));
        let part = digits.fold(0.0, |n, d| n * f64::from(radix) + f64::from(d));
        total * 60.0 + part
    });
    Unread::Beyond(
        message,
        Number::from_f64(if negative { -near } else { near }),
    )
}

fn float_of(text: &str) -> Result<Number, Unread> {
    let plain = text.replace('_', "").to_lowercase();
    let body = unsigned(&plain);
    let mut total = 0.0;
    for part in body.split(':') {
        let n: f64 = match part {
            ".inf" => f64::INFINITY,
            ".nan" => f64::NAN,
            _ => part
                .parse()
                .map_err(|_| format!("`{text}` is not a number that PyYAML can read"))?,
        };
        total = total * 60.0 + n;
    }
    if plain.starts_with('-') {
        total = -total;
    }
    Number::from_f64(total).ok_or_else(|| {
        let why = format!("`{text}` is no finite number, and JSON has no other: quote it");
        Unread::Beyond(why, None)
    })
}
