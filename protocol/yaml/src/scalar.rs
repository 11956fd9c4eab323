//! The implicit resolvers and constructors of `PyYAML`, YAML 1.1.

use std::sync::LazyLock;

use regex::Regex;
use serde_json::Number;

use crate::dialect::pattern;
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
    /// `=`, which `PyYAML` resolves and cannot construct.
    Value,
    Str,
    /// `!!binary`, never resolved from a plain word.
    Binary,
}

/// The constructed value of a scalar.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Data {
    Null,
    Bool(bool),
    Number(Number),
    /// A date or a point in time; kept as written.
    Timestamp,
    /// A value that JSON cannot represent; kept as written. Its type, and the nearest number.
    NonJson(Tag, Option<Number>),
    Merge,
    Str,
}

/// Why a scalar has no value.
#[derive(Debug, PartialEq)]
pub(crate) enum ConstructError {
    /// `PyYAML` cannot read it either.
    Invalid(String),
    /// `PyYAML` can read it, and JSON cannot represent it. The nearest number, if any.
    NonJson(String, Option<Number>),
}

impl From<String> for ConstructError {
    fn from(why: String) -> ConstructError {
        ConstructError::Invalid(why)
    }
}

/// The prefix that `!!` abbreviates.
pub(crate) const CORE: &str = "tag:yaml.org,2002:";

/// The type of an explicit tag, if a config can have it.
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

static INT: LazyLock<Regex> = LazyLock::new(|| {
    pattern(concat!(
        "[-+]?0b[0-1_]+|[-+]?0[0-7_]+|[-+]?(?:0|[1-9][0-9_]*)|[-+]?0x[0-9a-fA-F_]+",
        "|[-+]?[1-9][0-9_]*(?::[0-5]?[0-9])+",
    ))
});

static FLOAT: LazyLock<Regex> = LazyLock::new(|| {
    pattern(concat!(
        r"[-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+][0-9]+)?|\.[0-9][0-9_]*(?:[eE][-+][0-9]+)?",
        r"|[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+\.[0-9_]*",
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
    ))
});

pub(crate) fn resolve(text: &str) -> Tag {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Tag::Null,
        "<<" => Tag::Merge,
        "=" => Tag::Value,
        _ if is_bool(text) => Tag::Bool,
        _ if !text.starts_with(|c: char| "-+.0123456789".contains(c)) => Tag::Str,
        _ if FLOAT.is_match(text) => Tag::Float,
        _ if INT.is_match(text) => Tag::Int,
        _ if is_timestamp(text) => Tag::Timestamp,
        _ => Tag::Str,
    }
}

/// The value of a scalar with this tag, or why `PyYAML` cannot construct it or JSON cannot represent it.
pub(crate) fn construct(tag: Tag, text: &str) -> Result<Data, ConstructError> {
    match tag {
        Tag::Null => Ok(Data::Null),
        Tag::Str => Ok(Data::Str),
        Tag::Merge => Ok(Data::Merge),
        Tag::Value => {
            let why = "`=` has a special meaning in YAML 1.1: quote it";
            Err(ConstructError::Invalid(why.into()))
        }
        Tag::Bool => Ok(Data::Bool(construct_bool(text)?)),
        Tag::Int => parse_int(text).map(Data::Number),
        Tag::Float => parse_float(text).map(Data::Number),
        Tag::Timestamp if is_real_time(text) => Ok(Data::Timestamp),
        Tag::Timestamp => {
            let why = format!("`{text}` looks like a date and is not valid: quote it");
            Err(ConstructError::Invalid(why))
        }
        Tag::Binary if is_base64(text) => Err(ConstructError::NonJson(
            "`!!binary` is bytes, which JSON cannot represent".into(),
            None,
        )),
        Tag::Binary => Err(ConstructError::Invalid(
            "`!!binary` that is not base64".into(),
        )),
    }
}

/// Whether Python's decoder accepts it. It ignores characters outside the alphabet.
fn is_base64(text: &str) -> bool {
    let is_data = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/');
    let count = text.bytes().filter(is_data).count();
    let padding = text.bytes().filter(|b| *b == b'=').count();
    text.is_ascii() && count % 4 != 1 && padding >= (4 - count % 4) % 4
}

fn is_bool(text: &str) -> bool {
    matches!(
        text,
        "yes"
            | "Yes"
            | "YES"
            | "true"
            | "True"
            | "TRUE"
            | "on"
            | "On"
            | "ON"
            | "no"
            | "No"
            | "NO"
            | "false"
            | "False"
            | "FALSE"
            | "off"
            | "Off"
            | "OFF"
    )
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

fn parse_int(text: &str) -> Result<Number, ConstructError> {
    let refused =
        || ConstructError::Invalid(format!("`{text}` is not an integer that PyYAML can read"));
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

fn too_large(text: &str, digits: &str, radix: u32, negative: bool) -> ConstructError {
    let message = format!("the integer `{text}` does not fit into 64 bits");
    let near = digits.split(':').fold(0.0, |total, part| {
        let digits = part.chars().filter_map(|c| c.to_digit(radix));
        let part = digits.fold(0.0, |n, d| n * f64::from(radix) + f64::from(d));
        total * 60.0 + part
    });
    ConstructError::NonJson(
        message,
        Number::from_f64(if negative { -near } else { near }),
    )
}

fn parse_float(text: &str) -> Result<Number, ConstructError> {
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
        let why =
            format!("`{text}` is not a finite number, and JSON has only finite ones: quote it");
        ConstructError::NonJson(why, None)
    })
}
