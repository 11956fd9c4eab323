//! `describe`: prints versions, verbs and schemas, without side effects.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::call::Verb;
use crate::config::schema_of;
use crate::kinds;
use crate::message::VERSION;
use crate::provides::Provides;
use crate::stage::Stage;

/// What the verb `describe` prints.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Description {
    /// Protocol version of the program.
    pub dcs: u64,
    /// Kind of stage.
    pub kind: String,
    /// Version of the program.
    pub version: String,
    /// Its purpose.
    pub about: String,
    /// Its verbs.
    pub verbs: Vec<String>,
    /// JSON Schema of its config; if absent, it accepts anything.
    #[serde(default = "anything")]
    pub config: Value,
    /// JSON Schema of its outputs.
    #[serde(default = "anything")]
    pub outputs: Value,
    /// The meaning of the outputs: JSON pointers into them, by meaning.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub provides: Provides,
    /// The release of a kind of this project: its programs are used together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<String>,
    /// Flags of `check` besides `--preflight`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub diagnostics: Vec<Diagnostic>,
    /// Example commands, shown at the end of its help.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub examples: String,
}

/// A flag of `check`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Diagnostic {
    /// The flag without its hyphens.
    pub name: String,
    /// What it checks.
    pub about: String,
}

fn anything() -> Value {
    Value::Bool(true)
}

impl Description {
    /// Whether the program has this verb.
    pub fn has(&self, verb: &str) -> bool {
        self.verbs.iter().any(|v| v == verb)
    }
}

/// What `describe` of this stage prints.
pub fn description<S: Stage>() -> Description {
    Description {
        dcs: VERSION,
        kind: S::KIND.to_owned(),
        version: S::VERSION.to_owned(),
        about: S::ABOUT.to_owned(),
        verbs: Verb::all()
            .map(|(_, named)| named.get_name().to_owned())
            .collect(),
        config: schema_of::<S::Config>(),
        outputs: schema_of::<S::Outputs>(),
        provides: S::provides(),
        release: kinds::is_ours(S::KIND).then(|| kinds::RELEASE.to_owned()),
        diagnostics: S::DIAGNOSTICS
            .iter()
            .map(|(name, about)| Diagnostic {
                name: (*name).to_owned(),
                about: (*about).to_owned(),
            })
            .collect(),
        examples: S::EXAMPLES.to_owned(),
    }
}
