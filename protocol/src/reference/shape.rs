//! The kind of value that a schema promises for a reference.

use serde_json::Value;

use super::{join, unknown};
use crate::yaml::Seg;

/// The kind of value that a schema promises at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A mapping or a list, which cannot be a part of a text.
    Collection,
    /// A single value, or unknown.
    Plain,
}

/// Follows a path through the schema of an instance's outputs. A path that the schema leaves open is valid.
///
/// # Errors
/// The schema has no such value.
pub fn shape_at(instance: &str, schema: &Value, path: &[Seg]) -> Result<Shape, String> {
    let mut so_far = instance.to_owned();
    let mut at = schema;
    for seg in path {
        at = present(at);
        let properties = at["properties"].as_object().filter(|p| !p.is_empty());
        at = match (seg, properties) {
            (Seg::Key(key), Some(properties)) => match properties.get(key) {
                Some(property) => property,
                None if at["additionalProperties"].is_object() => &at["additionalProperties"],
                None if at["additionalProperties"] == true => return Ok(Shape::Plain),
                None => return Err(unknown(&so_far, key, properties.keys().map(String::as_str))),
            },
            (Seg::Index(_), None) if at["items"].is_object() => &at["items"],
            _ if is_single(at) => return Err(format!("there is nothing below `{so_far}`")),
            _ => return Ok(Shape::Plain),
        };
        so_far = join(&so_far, seg);
    }
    let at = present(at);
    let collection = ["object", "array"].iter().any(|t| at["type"] == *t);
    Ok(match collection {
        true => Shape::Collection,
        false => Shape::Plain,
    })
}

/// The schema of a value that may be null, without the null.
fn present(schema: &Value) -> &Value {
    let any = schema["anyOf"].as_array().into_iter().flatten();
    let mut some = any.filter(|s| s["type"] != "null");
    match (some.next(), some.next()) {
        (Some(only), None) => present(only),
        _ => schema,
    }
}

fn is_single(schema: &Value) -> bool {
    let single = |t: &Value| {
        ["string", "integer", "number", "boolean", "null"]
            .iter()
            .any(|s| t == s)
    };
    match &schema["type"] {
        Value::Array(types) => types.iter().all(single),
        one => single(one),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_schema_tells_what_is_not_there_and_what_was_meant() {
        let schema = json!({"type": "object", "properties": {
            "port": {"type": "integer"},
            "block": {"anyOf": [{"type": "object", "properties": {"ip": {"type": "string"}}}, {"type": "null"}]},
            "list": {"type": "array", "items": {"type": "string"}},
            "open": {"type": "object"},
        }});
        let shape = |path: &str| shape_at("t", &schema, &crate::config::segments(path));
        assert_eq!(shape("port"), Ok(Shape::Plain));
        assert_eq!(shape("block"), Ok(Shape::Collection));
        assert_eq!(shape("block.ip"), Ok(Shape::Plain));
        assert_eq!(shape("list[3]"), Ok(Shape::Plain));
        assert_eq!(shape("open.what.ever"), Ok(Shape::Plain));
        assert_eq!(shape(""), Ok(Shape::Collection));
        assert_eq!(
            shape("prot").unwrap_err(),
            "t has no `prot`; did you mean `t.port`?"
        );
        assert_eq!(
            shape("port.x").unwrap_err(),
            "there is nothing below `t.port`"
        );
        assert!(shape("block.nope").unwrap_err().contains("there is ip"));
    }
}
