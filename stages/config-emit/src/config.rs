//! What the user says, and what the stage reports.

use std::path::{Path, PathBuf};
use std::time::Duration;

use protocol::rundir::is_instance_name;
use protocol::{Context, Problem, Reports};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Writes the config of a later stage.
pub struct ConfigEmit;

/// Config of config-emit.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The file to start from: a devcluster.yaml, or a stage's config such as <temp_dir>/master.conf. Never written to.
    #[serde(default)]
    pub base: Option<PathBuf>,

    /// Where to write the result; "-" is stdout. Unset, with a control socket and no base: nothing is written, and stages
    /// that use what is old by now are restarted all the same.
    #[serde(default)]
    pub out: Option<PathBuf>,

    /// Names of the instances whose values to use. Unset: everything that runs in the run directory, or speaks on stdin.
    #[serde(default)]
    pub upstreams: Option<Vec<String>>,

    /// Name of the stage whose config is rendered.
    #[serde(default = "default_stage")]
    pub stage: String,

    /// What is written.
    #[serde(default)]
    pub format: Format,

    /// Set the fields that a Determined master has for what tunnel and gateway find out. Without, references alone.
    #[serde(default = "yes")]
    pub known_fields: bool,

    /// The resource manager, by its name or cluster_name, that each gateway is for: {"gateway-2": "east"}. Those that are
    /// not named here find theirs by their own name, or by order.
    #[serde(default)]
    pub resource_managers: Map<String, Value>,

    /// Show on stderr what differs from the base.
    #[serde(default)]
    pub diff: bool,

    /// The control socket of the devcluster whose stages use the result: <temp_dir>/sock.
    #[serde(default)]
    pub control_socket: Option<PathBuf>,

    /// What to do, with a control socket, when a running stage uses what is old by now.
    #[serde(default)]
    pub on_change: OnChange,

    /// Restart a stage at most once in so many seconds.
    #[serde(default = "default_restart_interval")]
    #[schemars(range(min = 1))]
    pub restart_interval: f64,
}

/// What to do about a stage that uses old values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnChange {
    /// Have devcluster restart it, unless its target is below that stage.
    #[default]
    Restart,
    /// Say so.
    Warn,
}

/// What is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// The base with the values in it.
    #[default]
    File,
    /// The stage's own config, also where the base is a devcluster.yaml.
    Config,
    /// Of that config the top-level blocks in which something was set.
    Block,
    /// What the upstreams reported, as JSON. Needs no base, and neither do the next two.
    Json,
    /// The same as shell variables, for `eval` and for CircleCI's $BASH_ENV.
    Shell,
    /// The same as NAME=value lines, for $GITHUB_ENV and $GITHUB_OUTPUT.
    KeyValue,
}

impl Format {
    /// Whether it is made from a file.
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
    /// The file to write, where it is not stdout.
    pub(crate) fn file(&self) -> Option<&Path> {
        self.out.as_deref().filter(|out| *out != Path::new("-"))
    }

    /// The least time between two restarts of a stage.
    pub(crate) fn restart_interval(&self) -> Duration {
        Duration::try_from_secs_f64(self.restart_interval).unwrap_or_default()
    }

    /// An empty list is not the same as none: it names nobody.
    pub(crate) fn ignores_upstreams(&self) -> bool {
        self.upstreams.as_ref().is_some_and(Vec::is_empty)
    }

    pub(crate) fn names(&self) -> &[String] {
        self.upstreams.as_deref().unwrap_or_default()
    }

    /// What its upstreams have reported so far.
    pub(crate) fn reports(&self, cx: &Context<ConfigEmit>) -> Reports {
        match self.ignores_upstreams() {
            true => Reports::new(),
            false => cx.upstream.reports(self.names()),
        }
    }
}

/// What config-emit reports.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Outputs {
    /// The file that was written; null when it went to stdout.
    pub path: Option<PathBuf>,
    /// The stage whose config it is; null when none is written.
    pub stage: Option<String>,
    /// What was set, by its path in that config.
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
            let why = "missing; only with a control_socket and without a base is nothing written";
            problems.push(Problem::key("out", why));
        }
        (Some(base), Some(out)) if real(base) == real(out) => {
            let why = "is the base itself, which is never written to";
            problems.push(Problem::new("out", why).depends_on("base"));
        }
        (None, Some(_)) if config.format.needs_base() => {
            let why = "missing; this format is made from a devcluster.yaml or a stage's config";
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
