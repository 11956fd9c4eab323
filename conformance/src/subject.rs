//! The program under test: its command line, its config, its description.

use std::cell::RefCell;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use protocol::config::read_mapping;
use protocol::{Env, Exit, StageError, codes};
use serde_json::{Map, Value};
use tempfile::TempDir;

use super::Level;
use super::scene::Scene;

/// The program under test.
#[derive(Debug)]
pub(super) struct Subject {
    /// The program and the words before the verb.
    pub(super) program: Vec<OsString>,
    /// Flags of its config, for `run`, `once` and `check`.
    pub(super) flags: Vec<OsString>,
    pub(super) config: Map<String, Value>,
    pub(super) level: Level,
    /// The output of `describe`.
    pub(super) description: Value,
    /// Texts that must not appear anywhere.
    pub(super) secrets: Vec<String>,
    /// How long it may take to become ready.
    pub(super) patience: Duration,
    /// How often it is killed.
    pub(super) kills: u32,
    pub(super) devcluster: Option<PathBuf>,
    /// devcluster-remote, which hosts a plugin.
    pub(super) driver: Option<PathBuf>,
    /// Whether it is known that it never becomes ready.
    pub(super) never_ready: bool,
    /// Homes with a killed run, which need a `cleanup`.
    pub(super) untidy: RefCell<Vec<TempDir>>,
}

/// The name of every instance.
pub(super) const INSTANCE: &str = "subject";

pub(super) fn usage(message: impl Into<String>) -> StageError {
    StageError::new(codes::USAGE, message)
}

/// Splits the words at the first that begins with `-`: the verb goes between the two parts.
pub(super) fn split(words: Vec<OsString>) -> (Vec<OsString>, Vec<OsString>) {
    let is_flag = |w: &OsString| w.as_encoded_bytes().starts_with(b"-");
    let at = words.iter().position(is_flag).unwrap_or(words.len());
    let mut program = words;
    let flags = program.split_off(at);
    (program, flags)
}

/// The absolute path of the program: checks run in other directories.
pub(super) fn resolve(program: &mut [OsString], env: &Env) -> Result<(), StageError> {
    let Some(first) = program.first_mut() else {
        return Err(usage("name the program to check after `--`"));
    };
    let name = first.to_string_lossy().into_owned();
    let found = env.find_program(&name).ok_or_else(|| {
        usage(format!("{name} does not exist or is not executable"))
            .hint("name a program on $PATH or its path; make it executable: chmod +x")
    })?;
    let path = std::path::absolute(&found)
        .map_err(|e| StageError::io(format!("cannot resolve {name}"), &e))?;
    *first = path.into();
    Ok(())
}

/// A config file, with variables expanded as a host does.
pub(super) fn read_config(path: &Path, env: &Env) -> Result<Map<String, Value>, StageError> {
    let (mut map, _) = read_mapping(path)?;
    map.values_mut()
        .for_each(|v| each_text(v, &|text| env.expand(text)));
    map.retain(|_, v| !v.is_null());
    Ok(map)
}

fn each_text(value: &mut Value, change: &impl Fn(&str) -> String) {
    match value {
        Value::String(text) => *text = change(text),
        Value::Array(items) => items.iter_mut().for_each(|v| each_text(v, change)),
        Value::Object(map) => map.values_mut().for_each(|v| each_text(v, change)),
        _ => {}
    }
}

impl Subject {
    /// Calls `describe`. Without `--level`, its verbs determine the level.
    pub(super) async fn describe(&mut self, level: Option<Level>) -> Result<(), StageError> {
        let said = async {
            let output = Scene::new(self).await?.call("describe", &[]).await?;
            serde_json::from_slice(&output.stdout)
                .map_err(|e| anyhow::anyhow!("{e}; stderr: {}", output.stderr.trim_end()))
        };
        self.description = said.await.map_err(|why| {
            let message = format!("the output of `describe` is not valid: {why:#}");
            StageError::new(codes::PROGRAM_FAILED, message)
                .hint("see PROTOCOL.md#describe")
                .exit(Exit::CheckFailed)
        })?;
        self.level = level.unwrap_or(match self.has("wait") {
            true => Level::Stage,
            false => Level::Plugin,
        });
        Ok(())
    }

    pub(super) fn has(&self, verb: &str) -> bool {
        let verbs = self.description["verbs"].as_array();
        verbs.is_some_and(|verbs| verbs.iter().any(|v| v == verb))
    }

    pub(super) fn is_stage(&self) -> bool {
        self.level == Level::Stage
    }

    /// The config for a `start`. A full stage expands it, so `$` is escaped.
    pub(super) fn start_config(&self) -> Value {
        let mut config = Value::Object(self.config.clone());
        if self.is_stage() {
            each_text(&mut config, &|text| text.replace('$', "$$"));
        }
        config
    }
}
