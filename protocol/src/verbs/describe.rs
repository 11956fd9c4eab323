//! `describe`: versions, verbs and schemas, with no side effect.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::cli::VERBS;
use crate::config::schema_of;
use crate::error::Exit;
use crate::io::Io;
use crate::message::VERSION;
use crate::stage::Stage;

/// What `describe` prints.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Description {
    /// Protocol version that the program speaks.
    pub dcs: u64,
    /// Kind of stage.
    pub kind: String,
    /// Version of the program.
    pub version: String,
    /// What it is for.
    pub about: String,
    /// The verbs that it has.
    pub verbs: Vec<String>,
    /// JSON Schema of its config.
    pub config: Value,
    /// JSON Schema of its outputs.
    pub outputs: Value,
}

/// What `describe` of this stage prints.
pub fn description<S: Stage>() -> Description {
    Description {
        dcs: VERSION,
        kind: S::KIND.to_owned(),
        version: S::VERSION.to_owned(),
        about: S::ABOUT.to_owned(),
        verbs: VERBS.iter().map(|(name, ..)| (*name).to_owned()).collect(),
        config: schema_of::<S::Config>(),
        outputs: schema_of::<S::Outputs>(),
    }
}

pub(crate) fn describe<S: Stage>(io: &mut Io) -> u8 {
    let Ok(mut text) = serde_json::to_vec_pretty(&description::<S>()) else {
        return Exit::Internal as u8;
    };
    text.push(b'\n');
    match io.stdout.write_all(&text).and_then(|()| io.stdout.flush()) {
        Ok(()) => Exit::Ok as u8,
        Err(_) => Exit::Failed as u8,
    }
}
