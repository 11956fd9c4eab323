//! Replaces references in a file with their values.

use std::ops::Range;

use protocol::reference::{Part, Reference, is_templated, parse, value_at};
use protocol::yaml::{Scalar, show};
use protocol::{Problem, Reports};
use serde_json::Value;

use crate::base::Base;
use crate::stage_config::StageConfig;

/// The new value of each scalar with references.
pub(crate) fn substitute<'a>(
    target: &StageConfig<'a>,
    reports: &Reports,
) -> Result<Vec<(Scalar<'a>, Value)>, Vec<Problem>> {
    map_scalars(target, |parts, bad| {
        combine(parts, target.expands, reports, bad)
    })
}

/// Counts the references of a config. Each must name one of these instances, if they are known, and a value of a
/// reported one.
pub(crate) fn check_references(
    target: &StageConfig<'_>,
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
    let mut count = 0;
    map_scalars::<()>(target, |parts, bad| {
        for part in parts {
            if let Part::Reference(reference) = part {
                count += 1;
                if let Err(why) = look(reference) {
                    bad.push((reference.range.clone(), why));
                }
            }
        }
        None
    })?;
    Ok(count)
}

/// Applies `make` to the parts of each templated scalar. Fails with all problems, each with its place.
fn map_scalars<'a, T>(
    target: &StageConfig<'a>,
    mut make: impl FnMut(&[Part<'a>], &mut BadReferences) -> Option<T>,
) -> Result<Vec<(Scalar<'a>, T)>, Vec<Problem>> {
    let Base {
        document, source, ..
    } = target.base;
    let (mut made, mut problems) = (Vec::new(), Vec::new());
    for scalar in document.scalars(&target.config, is_templated) {
        let path = show(&scalar.path);
        let at = |range: Range<usize>, message: String| {
            let span = document.span_in(&scalar, range);
            Problem::new(path.clone(), message).at(source, span)
        };
        if scalar.is_key {
            let message = "a reference in a key; only values can have references";
            problems.push(at(0..scalar.text.len(), message.to_owned()));
            continue;
        }
        match parse(scalar.text) {
            Err(malformed) => problems.push(at(malformed.range, malformed.message)),
            Ok(parts) => {
                let mut bad = Vec::new();
                let value = make(&parts, &mut bad);
                problems.extend(bad.into_iter().map(|(range, why)| at(range, why)));
                made.extend(value.map(|value| (scalar, value)));
            }
        }
    }
    match problems.is_empty() {
        true => Ok(made),
        false => Err(problems),
    }
}

/// Ranges of references in a scalar, and what is wrong with them.
type BadReferences = Vec<(Range<usize>, String)>;

/// A reference alone keeps its type; within text it becomes text. `None`: nothing changes.
fn combine<'a>(
    parts: &[Part<'a>],
    expands: bool,
    reports: &Reports,
    bad: &mut BadReferences,
) -> Option<Value> {
    let look = |reference: &Reference<'a>| {
        let value = look_up(reference, reports)?;
        Ok(if expands { escaped(value) } else { value })
    };
    let mut note = |reference: &Reference<'a>, why| bad.push((reference.range.clone(), why));
    if let [Part::Reference(only)] = parts {
        return look(only).map_err(|why| note(only, why)).ok();
    }
    let (mut text, mut changed) = (String::new(), false);
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
                match look(reference).and_then(|value| scalar_text(&value)) {
                    Ok(value) => text.push_str(&value),
                    Err(why) => note(reference, why),
                }
            }
        }
    }
    changed.then_some(Value::String(text))
}

/// The current value of a reference.
pub(crate) fn look_up(reference: &Reference<'_>, reports: &Reports) -> Result<Value, String> {
    let (name, path) = reference.resolve(reports.keys().map(String::as_str))?;
    value_at(name, &reports[name].outputs, path)
}

/// The text of a single value.
fn scalar_text(value: &Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(_) | Value::Bool(_) => Ok(value.to_string()),
        Value::Null => Err("is empty (null), which cannot be part of a text".into()),
        Value::Array(_) | Value::Object(_) => {
            Err("is a list or a mapping, which cannot be part of a text".into())
        }
    }
}

/// devcluster reads `$$` as one `$`.
fn escaped(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(text.replace('$', "$$")),
        Value::Array(items) => items.into_iter().map(escaped).collect(),
        Value::Object(map) => map.into_iter().map(|(k, v)| (k, escaped(v))).collect(),
        other => other,
    }
}
