//! Stand-ins for values that are set but not known yet, so that the rest of a config can be read.

use serde_json::{Map, Value};
use yaml::Seg;

use super::required;
use crate::validate::Unknown;

/// Takes the unknown values out where they may be absent, and puts a valid one in their place where not.
pub(super) fn put(values: &mut Map<String, Value>, unknown: &Unknown, schema: &Value) {
    let mut whole = Value::Object(std::mem::take(values));
    for path in unknown.paths() {
        put_at(&mut whole, path, schema);
    }
    if let Value::Object(map) = whole {
        *values = map;
    }
}

fn put_at(at: &mut Value, path: &[Seg], schema: &Value) {
    match (path, at) {
        ([Seg::Key(key)], Value::Object(map)) if map.contains_key(key) => {
            let below = property(schema, key);
            if required(schema).contains(&key.as_str()) {
                map.insert(key.clone(), sample(below));
            } else {
                map.shift_remove(key);
            }
        }
        ([Seg::Key(key), rest @ ..], Value::Object(map)) => {
            if let Some(value) = map.get_mut(key) {
                put_at(value, rest, property(schema, key));
            }
        }
        ([Seg::Index(i)], Value::Array(items)) => {
            if let Some(item) = items.get_mut(*i) {
                *item = sample(items_of(schema, *i));
            }
        }
        ([Seg::Index(i), rest @ ..], Value::Array(items)) => {
            if let Some(item) = items.get_mut(*i) {
                put_at(item, rest, items_of(schema, *i));
            }
        }
        _ => {}
    }
}

/// The variants of a schema that offers several, else the schema itself.
fn variants(schema: &Value) -> impl Iterator<Item = &Value> {
    let several = ["anyOf", "oneOf"]
        .into_iter()
        .find_map(|key| schema[key].as_array());
    let itself = several.is_none().then_some(schema);
    several.into_iter().flatten().chain(itself)
}

fn property<'a>(schema: &'a Value, key: &str) -> &'a Value {
    let found = variants(schema).find_map(|s| {
        let own = s["properties"].get(key);
        own.or_else(|| s.get("additionalProperties"))
    });
    found.unwrap_or(&Value::Null)
}

fn items_of(schema: &Value, index: usize) -> &Value {
    let found = variants(schema).find_map(|s| {
        let own = s["prefixItems"].get(index);
        own.or_else(|| s.get("items"))
    });
    found.unwrap_or(&Value::Null)
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
            let fields = needed.map(|key| (key.to_owned(), sample(property(variant, key))));
            Value::Object(fields.collect())
        }
        _ if variant.get("const").is_some() => variant["const"].clone(),
        _ => "x".into(),
    }
}
