//! `describe`: versions, verbs and schemas, with no side effect.

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
    /// JSON Schema of its config; absent, it takes anything.
    #[serde(default = "anything")]
    pub config: Value,
    /// JSON Schema of its outputs.
    #[serde(default = "anything")]
    pub outputs: Value,
    /// What the outputs mean: JSON pointers into them, by meaning.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub provides: Provides,
    /// The release that a kind of this project belongs to: its programs are used together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<String>,
    /// Flags of `check` beside `--preflight`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub diagnostics: Vec<Diagnostic>,
    /// The end of its help: commands to copy.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub examples: String,
}

/// A flag of `check`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Diagnostic {
    /// The flag without its hyphens.
    pub name: String,
    /// What it looks at.
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
