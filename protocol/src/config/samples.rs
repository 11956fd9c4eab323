//! Sample values in place of values that are set but not known yet, so that the rest of a config can be checked.

use serde_json::{Map, Value};
use yaml::Seg;

use super::required;
use crate::validate::Unknown;

/// Removes unknown values that are optional, and replaces required ones by a valid sample. Returns the unknown values that
/// the schema knows.
pub(super) fn fill_in(
    values: &mut Map<String, Value>,
    unknown: &Unknown,
    schema: &Value,
) -> Unknown {
    let mut whole = Value::Object(std::mem::take(values));
    let paths = unknown.0.iter();
    let placed = paths.filter(|path| fill_in_at(&mut whole, path, schema));
    let placed = Unknown(placed.cloned().collect());
    if let Value::Object(map) = whole {
        *values = map;
    }
    placed
}

fn fill_in_at(at: &mut Value, path: &[Seg], schema: &Value) -> bool {
    let Some((first, rest)) = path.split_first() else {
        return false;
    };
    let below = match first {
        Seg::Key(key) => property(schema, key),
        Seg::Index(i) => items_of(schema, *i),
    };
    let (Some(below), Some(value)) = (below, value_at(at, first)) else {
        return false;
    };
    if !rest.is_empty() {
        return fill_in_at(value, rest, below);
    }
    match (at, first) {
        (Value::Object(map), Seg::Key(key)) if !required(schema).contains(&key.as_str()) => {
            map.shift_remove(key);
        }
        (at, _) => {
            if let Some(value) = value_at(at, first) {
                *value = sample(below);
            }
        }
    }
    true
}

fn value_at<'a>(at: &'a mut Value, seg: &Seg) -> Option<&'a mut Value> {
    match seg {
        Seg::Key(key) => at.as_object_mut()?.get_mut(key),
        Seg::Index(i) => at.as_array_mut()?.get_mut(*i),
    }
}

/// The variants of a schema with `anyOf` or `oneOf`, else the schema itself.
fn variants(schema: &Value) -> impl Iterator<Item = &Value> {
    let several = ["anyOf", "oneOf"]
        .into_iter()
        .find_map(|key| schema[key].as_array());
    let itself = several.is_none().then_some(schema);
    several.into_iter().flatten().chain(itself)
}

fn property<'a>(schema: &'a Value, key: &str) -> Option<&'a Value> {
    let found = variants(schema).find_map(|s| {
        let own = s["properties"].get(key);
        own.or_else(|| s.get("additionalProperties"))
    });
    found.filter(|schema| **schema != false)
}

fn items_of(schema: &Value, index: usize) -> Option<&Value> {
    variants(schema).find_map(|s| {
        let own = s["prefixItems"].get(index);
        own.or_else(|| s.get("items"))
    })
}

fn sample(schema: &Value) -> Value {
    if let Some(known) = schema.get("default").or_else(|| schema.get("const")) {
        return known.clone();
    }
    if let Some(first) = schema["enum"].get(0) {
        return first.clone();
    }
    let types = |s: &Value| match &s["type"] {
        Value::Array(several) => several.iter().find(|t| *t != "null").cloned(),
        one => Some(one.clone()).filter(|t| t != "null"),
    };
    let Some((variant, type_)) = variants(schema).find_map(|s| Some((s, types(s)?))) else {
        return "x".into();
    };
    match type_.as_str() {
        Some("integer" | "number") => variant.get("minimum").cloned().unwrap_or(1.into()),
        Some("boolean") => false.into(),
        Some("array") => Value::Array(Vec::new()),
        Some("object") => {
            let needed = required(variant).into_iter();
            let fields = needed.map(|key| {
                (
                    key.to_owned(),
                    property(variant, key).map_or(Value::Null, sample),
                )
            });
            Value::Object(fields.collect())
        }
        _ if variant.get("const").is_some() => variant["const"].clone(),
        _ => "x".into(),
    }
}
