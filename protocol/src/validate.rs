//! The request and the answer of the verb `validate`: what is wrong with the configs in a file, and what a run would do,
//! before anything runs. One JSON document on stdin, one on stdout.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use yaml::Seg;

use crate::problem::Problem;
use crate::provides::{Provides, unescape};

/// The most bytes of a request and of an answer.
pub const LIMIT: usize = 4 << 20;

/// What the verb `validate` reads from stdin.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Request {
    /// Protocol version.
    pub dcs: u64,
    /// Always `validate`.
    #[serde(rename = "type")]
    pub type_: RequestType,
    /// The directory that relative paths start from.
    pub dir: PathBuf,
    /// Every instance of the file, of any kind, in order: those before an instance are its upstreams.
    #[serde(default)]
    pub stages: Vec<Listed>,
    /// The instances of this kind, in the order of the file.
    #[serde(default)]
    pub instances: Vec<Instance>,
    /// The inline configs of the stages that use outputs, such as a master's.
    #[serde(default)]
    pub targets: Vec<Target>,
}

impl Request {
    /// The upstreams of an instance: those before it.
    pub fn upstreams(&self, instance: &Instance) -> &[Listed] {
        let at = self.stages.iter().position(|s| s.stage == instance.stage);
        &self.stages[..at.unwrap_or_default()]
    }
}

/// The type of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RequestType {
    /// The only one.
    Validate,
}

/// One instance and its config.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Instance {
    /// Instance name.
    pub stage: String,
    /// Its config as written.
    pub config: Map<String, Value>,
    /// JSON pointers to values that contain a variable or a reference. They count as set and valid.
    #[serde(default)]
    pub unknown: Vec<String>,
}

/// An instance in the order of the file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Listed {
    /// Instance name.
    pub stage: String,
    /// Kind of stage.
    pub kind: String,
    /// The meaning of its outputs.
    #[serde(default)]
    pub provides: Provides,
}

/// The inline config of a stage that uses outputs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Target {
    /// Name of the stage.
    pub stage: String,
    /// Its config as written.
    pub config: Value,
    /// JSON pointers to values that contain a variable or a reference.
    #[serde(default)]
    pub unknown: Vec<String>,
}

/// What the verb `validate` prints.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Answer {
    /// Protocol version.
    pub dcs: u64,
    /// One verdict for each instance of the request.
    #[serde(default)]
    pub instances: Vec<Verdict>,
    /// The verdicts on the targets, from a kind that knows them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<TargetVerdict>,
}

/// The verdict of a stage on one instance.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Verdict {
    /// Instance name.
    pub stage: String,
    /// Every mistake at once.
    #[serde(default)]
    pub problems: Vec<Mistake>,
    /// The known values that a run uses, with defaults.
    #[serde(default)]
    pub effective: Map<String, Value>,
    /// Who can reach which port through it. If absent, a stage that provides a master's address exposes it to the internet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exposes: Option<Vec<Exposure>>,
    /// Who waits until it is ready, if the file does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate: Option<Gate>,
    /// The upstreams that it waits for by itself.
    #[serde(default)]
    pub waits_for: Vec<String>,
    /// What a run of it does, in one line for people.
    #[serde(default)]
    pub outline: String,
}

/// A mistake in a config.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Mistake {
    /// JSON pointer into the config; empty for the whole.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The key is wrong, not its value.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub key: bool,
    /// The target whose config contains it; if absent, the instance's own config does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
}

/// A port that others can reach.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Exposure {
    /// JSON pointer to the port in the outputs.
    pub port: String,
    /// Who can reach it.
    pub to: Audience,
    /// The port of this machine that it leads to, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_port: Option<u16>,
    /// What protects it from unwanted visitors; if absent, nothing does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guard: Option<String>,
    /// JSON pointer to the field of the config that sets the guard, if the config does not. The driver sets it to
    /// `determined` where the port leads to a master, and calls `wait --guard` after each start of the master.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guard_field: Option<String>,
}

/// Who can reach a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Audience {
    /// Anyone.
    Internet,
    /// Hosts in the cluster's network.
    Cluster,
    /// Processes on one machine.
    Host,
}

/// Who waits until a stage is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Gate {
    /// Every later stage.
    Stage,
    /// Only the stage that uses its outputs.
    Consumer,
}

/// The verdict on a target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TargetVerdict {
    /// Name of the stage.
    pub stage: String,
    /// The port on which it listens, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Whether it uses TLS.
    #[serde(default)]
    pub tls: bool,
    /// Its resource managers.
    #[serde(default)]
    pub managers: Vec<ManagerVerdict>,
}

/// A resource manager of a master.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ManagerVerdict {
    /// Its name.
    pub name: String,
    /// The instance that provides its task gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream: Option<String>,
    /// The namespace in which it runs tasks, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

/// The values of a config that are set but not known yet.
#[derive(Clone, Debug, Default)]
pub struct Unknown(pub(crate) Vec<Vec<Seg>>);

impl Unknown {
    /// Creates it from JSON pointers.
    pub fn from_pointers(pointers: &[String]) -> Unknown {
        Unknown(pointers.iter().map(|p| path_from_pointer(p)).collect())
    }

    /// Whether the value at this path is unknown, or part of an unknown value.
    pub fn covers(&self, path: &[Seg]) -> bool {
        self.0.iter().any(|u| path.starts_with(u))
    }

    /// Whether the value at this path, or a part of it, is unknown.
    pub fn touches(&self, path: &[Seg]) -> bool {
        let related = |u: &[Seg]| u.starts_with(path) || path.starts_with(u);
        self.0.iter().any(|u| related(u))
    }

    /// Whether this top-level field, or a part of it, is unknown.
    pub fn has(&self, field: &str) -> bool {
        self.touches(&[field.into()])
    }
}

/// A JSON pointer as a path.
pub fn path_from_pointer(pointer: &str) -> Vec<Seg> {
    let keys = pointer.split('/').skip(1).map(unescape);
    keys.map(|key| match key.parse::<usize>() {
        Ok(index) => Seg::Index(index),
        Err(_) => Seg::Key(key),
    })
    .collect()
}

/// A path as a JSON pointer.
pub fn pointer_from_path(path: &[Seg]) -> String {
    let key = |seg: &Seg| match seg {
        Seg::Key(key) => format!("/{}", key.replace('~', "~0").replace('/', "~1")),
        Seg::Index(index) => format!("/{index}"),
    };
    path.iter().map(key).collect()
}

impl From<&Problem> for Mistake {
    fn from(problem: &Problem) -> Mistake {
        let (message, hint) = problem.parts();
        Mistake {
            path: pointer_from_path(&crate::problem::segments(&problem.path)),
            message: message.to_owned(),
            hint: hint.map(str::to_owned),
            key: problem.on_key,
            target: None,
        }
    }
}

impl From<&Mistake> for Problem {
    fn from(mistake: &Mistake) -> Problem {
        let path = yaml::show(&path_from_pointer(&mistake.path));
        let hint = mistake.hint.as_ref().map(|hint| format!("; {hint}"));
        let message = format!("{}{}", mistake.message, hint.unwrap_or_default());
        if mistake.key {
            Problem::key(path, message)
        } else {
            Problem::new(path, message)
        }
    }
}
