//! One JSON Schema for the whole file, in either form, so that an editor completes and checks it. Draft 7: what editors read.

use protocol::Stage;
use schemars::JsonSchema;
use serde_json::{Map, Value, json};

use crate::host::Host;
use crate::plan::DRIVERS;

/// devcluster's own kinds of stage; a test compares it with what stock devcluster takes.
const STOCK: &str = include_str!("schema/stock.json");

/// The schema of a devcluster.yaml that may list the new stages, and of a flat remote_connect.yaml.
pub fn schema() -> Value {
    let mut definitions: Map<String, Value> = serde_json::from_str(STOCK).unwrap_or_default();
    let ours = [
        ("tunnel", body::<tunnel::Tunnel>(&[])),
        ("gateway", gateway()),
        ("config-emit", body::<config_emit::ConfigEmit>(&DRIVERS)),
        ("plugin", body::<Host>(&[])),
    ];
    let flat = flat();
    definitions.extend(ours.map(|(kind, schema)| (kind.to_owned(), schema)));
    let kinds = [
        "tunnel",
        "gateway",
        "config-emit",
        "plugin",
        "master",
        "db",
        "agent",
        "custom",
        "custom_docker",
        "elastic",
    ];
    let references = kinds.map(|kind| {
        let reference = json!({"$ref": format!("#/definitions/{kind}")});
        (kind.to_owned(), reference)
    });
    definitions.insert(
        "stage".to_owned(),
        json!({
            "description": "A stage: one key, its kind.",
            "type": "object",
            "minProperties": 1,
            "maxProperties": 1,
            "additionalProperties": false,
            "properties": Map::from_iter(references),
        }),
    );
    definitions.insert("devcluster".to_owned(), devcluster());
    definitions.insert("remote_connect".to_owned(), flat);
    json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "devcluster-remote",
        "description": "A devcluster.yaml that may list the stages tunnel, gateway, config-emit and plugin, or a flat remote_connect.yaml.",
        "type": "object",
        "properties": {"stages": {"description": "The stages, in the order in which they start.", "type": "array"}},
        "if": {"required": ["stages"]},
        "then": {"$ref": "#/definitions/devcluster"},
        "else": {"$ref": "#/definitions/remote_connect"},
        "definitions": definitions,
    })
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
                "description": "devcluster's own directory; the stages meet in `stages` below it.",
                "type": "string",
                "default": "/tmp/devcluster",
            },
            "cwd": {"description": "Where everything runs.", "type": "string"},
            "commands": {
                "description": "Commands of devcluster's console, by key.",
                "type": "object",
                "additionalProperties": {"$ref": "#/definitions/command"},
            },
            "startup_input": {"description": "Keys that are pressed at the start.", "type": "string"},
        },
    })
}

/// A stage's config, with what the driver reads of it.
fn body<S: Stage>(without: &[&str]) -> Value {
    let mut schema = draft7::<S::Config>();
    schema["description"] = S::ABOUT.into();
    if let Some(required) = schema.get_mut("required").and_then(Value::as_array_mut) {
        required.retain(|field| !without.iter().any(|w| field == w));
    }
    let needs_nothing = schema["required"].as_array().is_none_or(Vec::is_empty);
    if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        properties.retain(|field, _| !without.contains(&field.as_str()));
        properties.insert(
            "name".to_owned(),
            json!({
                "description": "Name of this instance; several of a kind need one each.",
                "type": "string",
                "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$",
                "default": S::KIND,
            }),
        );
        properties.insert("gate".to_owned(), json!({
            "description": "Who waits until it is ready: the next stage, or only the one that uses what it finds out.",
            "enum": ["stage", "consumer"],
        }));
    }
    if needs_nothing {
        schema["type"] = json!(["object", "null"]);
    }
    schema
}

fn gateway() -> Value {
    let mut schema = body::<gateway::Gateway>(&[]);
    if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        properties.insert(
            "resource_manager".to_owned(),
            json!({
                "description": "The resource manager that it is for, by its name or cluster_name.",
                "type": "string",
            }),
        );
    }
    schema
}

fn draft7<T: JsonSchema>() -> Value {
    let settings =
        schemars::generate::SchemaSettings::draft07().with(|s| s.inline_subschemas = true);
    let mut schema = settings
        .into_generator()
        .into_root_schema_for::<T>()
        .to_value();
    if let Some(schema) = schema.as_object_mut() {
        schema.shift_remove("$schema");
        schema.shift_remove("title");
    }
    schema
}

/// Every key of the Python tool, and those of the two stages that they become.
fn flat() -> Value {
    let mut properties = Map::new();
    for schema in [
        draft7::<<tunnel::Tunnel as Stage>::Config>(),
        draft7::<<gateway::Gateway as Stage>::Config>(),
    ] {
        properties.extend(
            schema["properties"]
                .as_object()
                .cloned()
                .unwrap_or_default(),
        );
    }
    for (key, help) in crate::flat::FLAT_FLAGS {
        properties
            .entry(key)
            .or_insert_with(|| json!({"description": help, "type": "string"}));
    }
    json!({"type": "object", "additionalProperties": false, "properties": properties})
}
