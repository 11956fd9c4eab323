//! The JSON Schemas that are checked in under `protocol/schema/`.

use schemars::JsonSchema;
use serde_json::{Value, json};

use crate::message::{Command, Message, VERSION};
use crate::rundir::{OutputsFile, Status};
use crate::validate::{Answer, Request};
use crate::verbs::describe::Description;

/// File name and content of each schema.
pub fn all() -> Vec<(&'static str, Value)> {
    vec![
        ("message.json", wire::<Message>()),
        ("command.json", wire::<Command>()),
        ("outputs.json", plain::<OutputsFile>()),
        ("status.json", plain::<Status>()),
        ("describe.json", plain::<Description>()),
        ("validate.json", plain::<Request>()),
        ("validate-answer.json", plain::<Answer>()),
    ]
}

fn plain<T: JsonSchema>() -> Value {
    schemars::schema_for!(T).to_value()
}

/// Adds the version, which every line carries.
fn wire<T: JsonSchema>() -> Value {
    let mut schema = plain::<T>();
    schema["properties"] = json!({"dcs": {"const": VERSION, "description": "Protocol version."}});
    schema["required"] = json!(["dcs"]);
    schema
}
