//! The values of references, put into the places where a file has them.

use protocol::reference::{Part, Reference, is_templated, parse, value_at};
use protocol::yaml::{Scalar, show};
use protocol::{Problem, Reports};
use serde_json::Value;

use crate::base::Base;
use crate::target::Target;

/// A value for each scalar of a config that refers to some.
pub(crate) fn fill<'a>(
    target: &Target<'a>,
    reports: &Reports,
) -> Result<Vec<(Scalar<'a>, Value)>, Vec<Problem>> {
    each(target, |parts| combine(parts, target.expands, reports))
}

/// How many references there are in a config. Each has to name one of these instances, where they are known, and a value
/// of those that have reported.
pub(crate) fn look_at_references(
    target: &Target<'_>,
    names: Option<&[String]>,
    reports: &Reports,
) -> Result<usize, Vec<Problem>> {
    let names = names.map(|names| names.iter().map(String::as_str));
    let look = |reference: &Reference<'_>| {
        let Some(names) = names.clone() else {
            return Ok(());
        };
        let (name, path) = reference.resolve(names)?;
        let reported = reports.get(name);
        reported.map_or(Ok(()), |u| value_at(name, &u.outputs, path).map(drop))
    };
    let looked = each(target, |parts| {
        let (mut count, mut wrong) = (0, Vec::new());
        for part in parts {
            if let Part::Reference(reference) = part {
                count += 1;
                wrong.extend(look(reference).err().map(|why| (reference.written, why)));
            }
        }
        match wrong.is_empty() {
            true => Ok(Some(count)),
            false => Err(wrong),
        }
    });
    looked.map(|counts| counts.iter().map(|(_, count)| count).sum())
}

/// What becomes of the parts of each templated scalar of a config; or everything that is wrong, with its place.
fn each<'a, T>(
    target: &Target<'a>,
    mut make: impl FnMut(&[Part<'a>]) -> Result<Option<T>, Wrong<'a>>,
) -> Result<Vec<(Scalar<'a>, T)>, Vec<Problem>> {
    let Base {
        document, source, ..
    } = target.base;
    let (mut made, mut problems) = (Vec::new(), Vec::new());
    for scalar in document.scalars(&target.config, is_templated) {
        let path = show(&scalar.path);
        let at = |range: std::ops::Range<usize>, message: String| {
            let span = document.span_in(&scalar, range);
            Problem::new(path.clone(), message).at(source, span)
        };
        if scalar.is_key {
            let message = "a reference in a key; only values can have some";
            problems.push(at(0..scalar.text.len(), message.to_owned()));
            continue;
        }
        match parse(scalar.text) {
            Err(malformed) => problems.push(at(malformed.range, malformed.message)),
            Ok(parts) => match make(&parts) {
                Ok(None) => {}
                Ok(Some(value)) => made.push((scalar, value)),
                Err(wrong) => {
                    let wrong = wrong.into_iter();
                    problems.extend(wrong.map(|(written, why)| {
                        let start = scalar.text.find(written).unwrap_or_default();
                        at(start..start + written.len(), why)
                    }));
                }
            },
        }
    }
    match problems.is_empty() {
        true => Ok(made),
        false => Err(problems),
    }
}

type Wrong<'a> = Vec<(&'a str, String)>;

/// A reference alone keeps its type, one among text becomes text. `None`: nothing is to be changed.
fn combine<'a>(
    parts: &[Part<'a>],
    expands: bool,
    reports: &Reports,
) -> Result<Option<Value>, Wrong<'a>> {
    let look = |reference: &Reference<'a>| {
        let value = look_up(reference, reports).map_err(|why| (reference.written, why))?;
        Ok(if expands { escaped(value) } else { value })
    };
    if let [Part::Reference(only)] = parts {
        return look(only).map(Some).map_err(|wrong| vec![wrong]);
    }
    let (mut text, mut wrong, mut changed) = (String::new(), Vec::new(), false);
    for part in parts {
        match part {
            Part::Text(plain) => text.push_str(plain),
            Part::Dollars(count) if expands => text.extend(std::iter::repeat_n('$', *count)),
            Part::Dollars(count) => {
                changed = true;
                text.extend(std::iter::repeat_n('$', count / 2));
            }
            Part::Reference(reference) => {
                changed = true;
                let value = look(reference);
                match value.and_then(|v| single(&v).map_err(|why| (reference.written, why))) {
                    Ok(value) => text.push_str(&value),
                    Err(error) => wrong.push(error),
                }
            }
        }
    }
    match wrong.is_empty() {
        true => Ok(changed.then_some(Value::String(text))),
        false => Err(wrong),
    }
}

/// The value that a reference leads to now.
pub(crate) fn look_up(reference: &Reference<'_>, reports: &Reports) -> Result<Value, String> {
    let (name, path) = reference.resolve(reports.keys().map(String::as_str))?;
    value_at(name, &reports[name].outputs, path)
}

/// The text of a single value.
pub(crate) fn single(value: &Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(_) | Value::Bool(_) => Ok(value.to_string()),
        Value::Null => Err("is empty (null): it cannot be a part of a text".into()),
        Value::Array(_) | Value::Object(_) => {
            Err("is a list or a mapping: it cannot be a part of a text".into())
        }
    }
}

/// devcluster makes one `$` of two.
fn escaped(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(text.replace('$', "$$")),
        Value::Array(items) => items.into_iter().map(escaped).collect(),
        Value::Object(map) => map.into_iter().map(|(k, v)| (k, escaped(v))).collect(),
        other => other,
    }
}
