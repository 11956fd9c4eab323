//! Config and outputs of config-emit.

use std::path::{Path, PathBuf};
use std::time::Duration;

use protocol::rundir::is_instance_name;
use protocol::{Context, Problem, Reports};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The stage that writes the config of a later stage.
pub struct ConfigEmit;

/// The config of config-emit.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The file to start from: a devcluster.yaml, or a stage's config such as <temp_dir>/master.conf. It is not
    /// changed.
    #[serde(default)]
    pub base: Option<PathBuf>,

    /// Where to write the result; "-" is stdout. Without it, with a control socket and no base, nothing is written, and
    /// stages that use outdated values are restarted.
    #[serde(default)]
    pub out: Option<PathBuf>,

    /// Names of the instances whose values to use. Default: all instances in the run directory, or on stdin.
    #[serde(default)]
    pub upstreams: Option<Vec<String>>,

    /// Name of the stage whose config is rendered.
    #[serde(default = "default_stage")]
    pub stage: String,

    /// What to write.
    #[serde(default)]
    pub format: Format,

    /// Set the fields that a Determined master has for the outputs of tunnel and gateway. If false, replace references
    /// only.
    #[serde(default = "yes")]
    pub known_fields: bool,

    /// The resource manager of each gateway, by its name or cluster_name: {"gateway-2": "east"}. Other gateways get
    /// theirs by their own name, or in order.
    #[serde(default)]
    pub resource_managers: Map<String, Value>,

    /// Show the difference to the base on stderr.
    #[serde(default)]
    pub diff: bool,

    /// The control socket of the devcluster whose stages use the result: <temp_dir>/sock.
    #[serde(default)]
    pub control_socket: Option<PathBuf>,

    /// With a control socket: what to do when a running stage uses outdated values.
    #[serde(default)]
    pub on_change: OnChange,

    /// Shortest time in seconds between two restarts of a stage.
    #[serde(default = "default_restart_interval")]
    #[schemars(range(min = 1))]
    pub restart_interval: f64,
}

/// What to do when a running stage uses outdated values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnChange {
    /// Ask devcluster to restart it, unless the stage is above devcluster's target.
    #[default]
    Restart,
    /// Print a warning.
    Warn,
}

/// What to write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// The base with the values in it.
    #[default]
    File,
    /// The stage's own config, even if the base is a devcluster.yaml.
    Config,
    /// The top-level blocks of that config in which a value was set.
    Block,
    /// The outputs of the upstreams as JSON. Like the next two, this needs no base.
    Json,
    /// The outputs as shell variables, for `eval` and for CircleCI's $BASH_ENV.
    Shell,
    /// The outputs as NAME=value lines, for $GITHUB_ENV and $GITHUB_OUTPUT.
    KeyValue,
}

impl Format {
    /// Whether the format needs a base.
    pub fn needs_base(self) -> bool {
        matches!(self, Format::File | Format::Config | Format::Block)
    }
}

fn yes() -> bool {
    true
}

fn default_restart_interval() -> f64 {
    10.0
}

fn default_stage() -> String {
    "master".to_owned()
}

impl Config {
    /// The file to write; `None` for stdout.
    pub(crate) fn file(&self) -> Option<&Path> {
        self.out.as_deref().filter(|out| *out != Path::new("-"))
    }

    /// Shortest time between two restarts of a stage.
    pub(crate) fn restart_interval(&self) -> Duration {
        Duration::try_from_secs_f64(self.restart_interval).unwrap_or_default()
    }

    /// An empty list means no upstreams; no list means all.
    pub(crate) fn ignores_upstreams(&self) -> bool {
        self.upstreams.as_ref().is_some_and(Vec::is_empty)
    }

    pub(crate) fn names(&self) -> &[String] {
        self.upstreams.as_deref().unwrap_or_default()
    }

    /// The outputs that its upstreams have reported so far.
    pub(crate) fn reports(&self, cx: &Context<ConfigEmit>) -> Reports {
        match self.ignores_upstreams() {
            true => Reports::new(),
            false => cx.upstream.reports(self.names()),
        }
    }
}

/// The outputs of config-emit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Outputs {
    /// The written file; null for stdout.
    pub path: Option<PathBuf>,
    /// The stage whose config was written; null if none was.
    pub stage: Option<String>,
    /// The values that were set, by their path in that config.
    pub values: Map<String, Value>,
}

pub(crate) fn validate(config: &Config) -> Vec<Problem> {
    let mut problems = Vec::new();
    for field in [("base", config.base.as_ref()), ("out", config.out.as_ref())] {
        if field.1.is_some_and(|path| path.as_os_str().is_empty()) {
            problems.push(Problem::new(field.0, "is empty"));
        }
    }
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    match (&config.base, &config.out) {
        (None, None) if config.control_socket.is_some() => {}
        (_, None) => {
            let why = "missing; it may be left out only with a control_socket and without a base";
            problems.push(Problem::key("out", why));
        }
        (Some(base), Some(out)) if real(base) == real(out) => {
            let why = "is the base itself, which must not be changed";
            problems.push(Problem::new("out", why).depends_on("base"));
        }
        (None, Some(_)) if config.format.needs_base() => {
            let why = "missing; this format needs a devcluster.yaml or a stage's config";
            problems.push(Problem::key("base", why).depends_on("format"));
        }
        _ => {}
    }
    if config.restart_interval.is_nan() || config.restart_interval < 1.0 {
        problems.push(Problem::new(
            "restart_interval",
            "expected 1 or more seconds",
        ));
    }
    for (gateway, manager) in &config.resource_managers {
        if !manager.is_string() {
            let path = format!("resource_managers.{gateway}");
            problems.push(Problem::new(
                path,
                "expected the name of a resource manager",
            ));
        }
    }
    for (i, name) in config.names().iter().enumerate() {
        if !is_instance_name(name) {
            let why = format!("`{name}` is not the name of an instance");
            problems.push(Problem::new(format!("upstreams[{i}]"), why));
        }
    }
    problems
}
