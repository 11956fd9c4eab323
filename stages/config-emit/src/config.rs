//! What the user says, and what the stage reports.

use std::path::{Path, PathBuf};

use protocol::Problem;
use protocol::rundir::is_instance_name;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Config of config-emit.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The file to start from: a devcluster.yaml, or a master's config such as <temp_dir>/master.conf. Never written to.
    pub base: PathBuf,

    /// Where to write the result; "-" is stdout.
    pub out: PathBuf,

    /// Names of the instances whose values to use. Unset: everything that runs in the run directory, or speaks on stdin.
    #[serde(default)]
    pub upstreams: Option<Vec<String>>,

    /// Name of the stage whose config is rendered.
    #[serde(default = "default_stage")]
    pub stage: String,

    /// Show on stderr what differs from the base.
    #[serde(default)]
    pub diff: bool,
}

fn default_stage() -> String {
    "master".to_owned()
}

impl Config {
    /// The file to write; none when the result goes to stdout.
    pub(crate) fn file(&self) -> Option<&Path> {
        (self.out != Path::new("-")).then_some(&self.out)
    }

    /// An empty list is not the same as none: it names nobody.
    pub(crate) fn wants_nobody(&self) -> bool {
        self.upstreams.as_ref().is_some_and(Vec::is_empty)
    }

    pub(crate) fn names(&self) -> &[String] {
        self.upstreams.as_deref().unwrap_or_default()
    }
}

/// What config-emit reports.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Outputs {
    /// The file that was written; null when it went to stdout.
    pub path: Option<PathBuf>,
    /// The stage whose config it is.
    pub stage: String,
    /// What was set, by its path in that config.
    pub values: Map<String, Value>,
}

pub(crate) fn validate(config: &Config) -> Vec<Problem> {
    let mut problems = Vec::new();
    for field in [("base", &config.base), ("out", &config.out)] {
        if field.1.as_os_str().is_empty() {
            problems.push(Problem::new(field.0, "is empty"));
        }
    }
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    if real(&config.base) == real(&config.out) {
        let why = "is the base itself, which is never written to";
        problems.push(Problem::new("out", why));
    }
    for (i, name) in config.names().iter().enumerate() {
        if !is_instance_name(name) {
            let why = format!("`{name}` is not the name of an instance");
            problems.push(Problem::new(format!("upstreams[{i}]"), why));
        }
    }
    problems
}
