//! The wire: one JSON object per line, `{"dcs":1,"type":…,"stage":<instance>,…}`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::StageError;
pub use crate::preflight::{Check, CheckStatus, Offer};
use crate::provides::Provides;

/// The protocol version. Within one version fields and types are only ever added.
pub const VERSION: u64 = 1;

/// A line that a stage writes to stdout.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Message {
    /// The first line of every stage.
    Hello {
        /// Instance name.
        stage: String,
        /// Kind of stage, such as `tunnel`.
        kind: String,
        /// Version of the program.
        version: String,
        /// Identifies this run of the instance; 16 hex digits.
        run: String,
        /// Process id.
        pid: u32,
    },
    /// The current step of longer work.
    Progress {
        /// Instance name.
        stage: String,
        /// Stable name of the step, such as `connect`.
        step: String,
        /// The step in words.
        message: String,
        /// How many parts are done, where they can be counted.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        done: Option<u64>,
        /// How many parts there are.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        total: Option<u64>,
    },
    /// A line for people.
    Log {
        /// Instance name.
        stage: String,
        /// Its severity.
        level: Level,
        /// The text, without a final newline.
        message: String,
    },
    /// The outputs of the stage; always before the `ready` of the same `gen`.
    Outputs(Outputs),
    /// One check of `check --preflight`.
    Check(Check),
    /// The outputs are valid. Written twice in one write: treat a repeated `gen` as the same message.
    Ready {
        /// Instance name.
        stage: String,
        /// The run that is ready.
        run: String,
        /// The generation of the valid outputs.
        #[serde(rename = "gen")]
        generation: u64,
    },
    /// The outputs are not valid at the moment; the stage works on it.
    Degraded(Failure),
    /// Something failed; `fatal` says whether the stage ends.
    Error(Failure),
    /// The stage shuts down.
    Stopping {
        /// Instance name.
        stage: String,
        /// The reason: `sigterm`, `sigint`, `sighup`, `shutdown`, `cancel`, `stdin_closed`, `host_gone`, `upstream_gone`, `command_ended`, `failed`.
        reason: String,
    },
    /// The last line of every stage.
    Result {
        /// Instance name.
        stage: String,
        /// Whether the call succeeded.
        ok: bool,
        /// The exit code that follows.
        exit: u8,
    },
}

/// The severity of a log line.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// For debugging.
    Debug,
    /// For users.
    Info,
    /// A warning.
    Warn,
}

/// The outputs of a stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Outputs {
    /// Instance name.
    pub stage: String,
    /// Kind of stage.
    pub kind: String,
    /// The run that reports them.
    pub run: String,
    /// Rises by one whenever the outputs of an instance change.
    #[serde(rename = "gen")]
    pub generation: u64,
    /// The values; the shape is the outputs schema of `describe`.
    pub outputs: Map<String, Value>,
    /// Their meaning: JSON pointers into them, by meaning.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub provides: Provides,
}

/// An error of an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Failure {
    /// Instance name.
    pub stage: String,
    /// The error.
    pub error: StageError,
}

/// A line that a host writes to a stage's stdin, with --stdin control.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Command {
    /// Start with this config. The first command.
    Start(Start),
    /// Restart with this config, in the same process.
    Reload(Start),
    /// Stop preparing. Ignored once ready.
    Cancel,
    /// Shut down.
    Shutdown,
}

/// A config for the stage.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Start {
    /// Replaces the config file; flags override it.
    #[serde(default)]
    pub config: Map<String, Value>,
}

impl Message {
    /// The instance that sends the message.
    pub fn stage(&self) -> &str {
        match self {
            Message::Hello { stage, .. }
            | Message::Progress { stage, .. }
            | Message::Log { stage, .. }
            | Message::Ready { stage, .. }
            | Message::Stopping { stage, .. }
            | Message::Result { stage, .. } => stage,
            Message::Outputs(m) => &m.stage,
            Message::Check(m) => &m.stage,
            Message::Degraded(m) | Message::Error(m) => &m.stage,
        }
    }

    /// Whether it can be dropped for a slow reader: only people read it.
    pub(crate) fn is_droppable(&self) -> bool {
        matches!(self, Message::Log { .. } | Message::Progress { .. })
    }
}

/// Why a line is not a message.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Not a JSON object, or without the envelope, or with a field of the wrong type.
    #[error("not a protocol message: {0}")]
    Malformed(String),
    /// The message has another protocol version.
    #[error("has protocol version {0}, this program has {VERSION}")]
    Version(Value),
}

/// Encodes a message as a line, newline included. `dcs`, `type` and `stage` come first, in this order.
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, serde_json::Error> {
    let body = serde_json::to_vec(message)?;
    let mut line = format!("{{\"dcs\":{VERSION},").into_bytes();
    line.extend_from_slice(&body[1..]);
    line.push(b'\n');
    Ok(line)
}

/// Decodes a line. `None` is a type that this version does not know: ignore it.
pub fn decode<T: serde::de::DeserializeOwned>(
    line: &[u8],
    known: &[&str],
) -> Result<Option<T>, DecodeError> {
    let malformed = |e: serde_json::Error| DecodeError::Malformed(e.to_string());
    let value: Value = serde_json::from_slice(line).map_err(malformed)?;
    let Some(object) = value.as_object() else {
        return Err(DecodeError::Malformed("not an object".into()));
    };
    match object.get("dcs") {
        Some(v) if v.as_u64() == Some(VERSION) => {}
        Some(v) => return Err(DecodeError::Version(v.clone())),
        None => return Err(DecodeError::Malformed("\"dcs\" is missing".into())),
    }
    match object.get("type").and_then(Value::as_str) {
        Some(kind) if known.contains(&kind) => {}
        Some(_) => return Ok(None),
        None => return Err(DecodeError::Malformed("\"type\" is missing".into())),
    }
    serde_json::from_value(value).map(Some).map_err(malformed)
}

const MESSAGES: &[&str] = &[
    "hello", "progress", "log", "outputs", "check", "ready", "degraded", "error", "stopping",
    "result",
];
const COMMANDS: &[&str] = &["start", "reload", "cancel", "shutdown"];

/// Decodes a line that a stage wrote.
pub fn decode_message(line: &[u8]) -> Result<Option<Message>, DecodeError> {
    decode(line, MESSAGES)
}

/// Decodes a line that a host wrote.
pub fn decode_command(line: &[u8]) -> Result<Option<Command>, DecodeError> {
    decode(line, COMMANDS)
}
