//! One JSON Schema for the whole file, in either form, so that an editor completes and checks it. Draft 7, which editors read.

use protocol::kinds::{DEVCLUSTERS, PLUGIN, RENDERER, is_ours};
use protocol::program::say;
use protocol::provides::TASK_GATEWAY;
use protocol::{Description, StageError};
use serde_json::{Map, Value, json};

use crate::flat::{GATEWAY, TUNNEL, flat_keys};
use crate::kinds::{Kinds, Programs};
use crate::plan::DRIVER_FIELDS;
use crate::stock;

/// The schema of a devcluster.yaml with the new stages, also those of other projects on `$PATH`, and of a flat
/// remote_connect.yaml.
pub(crate) async fn schema(programs: &Programs<'_>) -> Result<Value, StageError> {
    let mut definitions = stock::definitions();
    let mut kinds = programs.all();
    kinds.push(PLUGIN.to_owned());
    let mut flat = Map::new();
    for name in &kinds {
        let described = match programs.describe_known(name).await {
            Ok(described) => described,
            Err(error) if is_ours(name) => return Err(error),
            // Leave out this kind, so that an editor gets the others.
            Err(error) => {
                say(&format!("warning: {} is left out: {}", name, error.message));
                continue;
            }
        };
        if [TUNNEL, GATEWAY].contains(&name.as_str()) {
            let config = as_draft7(&described.config);
            flat.extend(
                config["properties"]
                    .as_object()
                    .cloned()
                    .unwrap_or_default(),
            );
        }
        definitions.insert(name.clone(), body(&described));
    }
    let names = kinds.iter().map(String::as_str).chain(DEVCLUSTERS);
    let names = names.filter(|kind| definitions.contains_key(*kind));
    let reference = |kind: &str| json!({"$ref": format!("#/definitions/{kind}")});
    let references: Map<String, Value> = names
        .map(|kind| (kind.to_owned(), reference(kind)))
        .collect();
    definitions.insert(
        "stage".to_owned(),
        json!({
            "description": "A stage: one key, its kind.",
            "type": "object",
            "minProperties": 1,
            "maxProperties": 1,
            "additionalProperties": false,
            "properties": references,
        }),
    );
    definitions.insert("devcluster".to_owned(), devcluster());
    definitions.insert("remote_connect".to_owned(), remote_connect(flat));
    Ok(json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "devcluster-remote",
        "description": "A devcluster.yaml that may list new kinds of stage, or a flat remote_connect.yaml.",
        "type": "object",
        "properties": {"stages": {"description": "The stages, in the order in which they start.", "type": "array"}},
        "if": {"required": ["stages"]},
        "then": {"$ref": "#/definitions/devcluster"},
        "else": {"$ref": "#/definitions/remote_connect"},
        "definitions": definitions,
    }))
}

fn devcluster() -> Value {
    json!({
        "type": "object",
        "required": ["stages"],
        "additionalProperties": false,
        "properties": {
            "stages": {
                "description": "The stages, in the order in which they start.",
                "type": "array",
                "items": {"$ref": "#/definitions/stage"},
            },
            "temp_dir": {
                "description": "devcluster's working files; `stages` in it is the run directory of the stages.",
                "type": "string",
                "default": "/tmp/devcluster",
            },
            "cwd": {"description": "Where everything runs.", "type": "string"},
            "commands": {
                "description": "Commands of devcluster's console, by key.",
                "type": "object",
                "additionalProperties": {"$ref": "#/definitions/command"},
            },
            "startup_input": {"description": "Keys to press at the start.", "type": "string"},
        },
    })
}

/// The schema of a stage: its config, and the fields of the driver.
fn body(described: &Description) -> Value {
    let mut schema = as_draft7(&described.config);
    if !schema.is_object() {
        schema = json!({"type": "object"});
    }
    let without: &[&str] = if described.kind == RENDERER {
        &DRIVER_FIELDS
    } else {
        &[]
    };
    schema["description"] = described.about.as_str().into();
    if let Some(schema) = schema.as_object_mut() {
        schema.shift_remove("$schema");
        schema.shift_remove("title");
    }
    if let Some(required) = schema.get_mut("required").and_then(Value::as_array_mut) {
        required.retain(|field| !without.iter().any(|w| field == w));
    }
    let needs_nothing = schema["required"].as_array().is_none_or(Vec::is_empty);
    let mut fields = match schema["properties"].take() {
        Value::Object(fields) => fields,
        _ => Map::new(),
    };
    fields.retain(|field, _| !without.contains(&field.as_str()));
    let mut add = |name: &str, field: Value| fields.insert(name.to_owned(), field);
    add(
        "name",
        json!({
            "description": "Name of this instance; several of a kind need one each.",
            "type": "string",
            "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$",
            "default": described.kind,
        }),
    );
    add(
        "gate",
        json!({
            "description": "Who waits until it is ready: every later stage, or only the consumers of its outputs.",
            "enum": ["stage", "consumer"],
        }),
    );
    if described.provides.contains_key(TASK_GATEWAY) {
        add(
            "resource_manager",
            json!({
                "description": "The resource manager that it serves, by its name or cluster_name.",
                "type": "string",
            }),
        );
    }
    schema["properties"] = fields.into();
    if needs_nothing {
        schema["type"] = json!(["object", "null"]);
    }
    schema
}

/// Rewrites lists of fixed length as in draft 7.
fn as_draft7(schema: &Value) -> Value {
    match schema {
        Value::Object(map) => {
            let fixed = map.contains_key("prefixItems");
            let fields = map.iter().map(|(key, value)| {
                let key = match key.as_str() {
                    "prefixItems" => "items",
                    "items" if fixed => "additionalItems",
                    other => other,
                };
                (key.to_owned(), as_draft7(value))
            });
            Value::Object(fields.collect())
        }
        Value::Array(items) => items.iter().map(as_draft7).collect(),
        other => other.clone(),
    }
}

/// The schema of a flat file: the keys of the Python tool, and the fields of the tunnel and the gateway.
fn remote_connect(mut properties: Map<String, Value>) -> Value {
    for (key, help) in flat_keys() {
        properties
            .entry(key)
            .or_insert_with(|| json!({"description": help, "type": "string"}));
    }
    json!({"type": "object", "additionalProperties": false, "properties": properties})
}
