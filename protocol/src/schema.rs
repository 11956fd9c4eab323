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
        (
            "message.json",
            wire::<Message>("A line that a stage writes to stdout."),
        ),
        (
            "command.json",
            wire::<Command>("A line that a host writes to a stage's stdin, with --stdin control."),
        ),
        (
            "outputs.json",
            plain::<OutputsFile>("<run-dir>/outputs/<instance>.json"),
        ),
        (
            "status.json",
            plain::<Status>("<run-dir>/status/<instance>.json"),
        ),
        (
            "describe.json",
            plain::<Description>("What the verb `describe` prints."),
        ),
        (
            "validate.json",
            plain::<Request>("What the verb `validate` reads from stdin."),
        ),
        (
            "validate-answer.json",
            plain::<Answer>("What the verb `validate` prints."),
        ),
    ]
}

fn plain<T: JsonSchema>(about: &str) -> Value {
    let mut schema = schemars::schema_for!(T).to_value();
    schema["description"] = about.into();
    schema
}

/// Every line carries the version beside what its type says.
fn wire<T: JsonSchema>(about: &str) -> Value {
    let mut schema = plain::<T>(about);
    schema["properties"] = json!({"dcs": {"const": VERSION, "description": "Protocol version."}});
    schema["required"] = json!(["dcs"]);
    schema
}
