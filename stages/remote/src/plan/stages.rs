//! Reads the new stages of a file.

use std::path::{Path, PathBuf};

use protocol::Problem;
use protocol::kinds::{DEVCLUSTERS, RENDERER, is_ours};
use protocol::provides::TASK_GATEWAY;
use protocol::rundir::is_instance_name;
use protocol::validate::Verdict;
use serde_json::{Map, Value};

use super::{NewStage, Plan, StageRequest};
use crate::problems::InputFile;

impl Plan {
    pub(super) fn add(
        &mut self,
        wanted: StageRequest,
        source: &InputFile,
        problems: &mut Vec<Problem>,
    ) {
        let StageRequest { kind, place, body } = wanted;
        let known = &self.kinds[&kind];
        let mut stage = NewStage {
            name: kind.clone(),
            program: known.program.clone(),
            provides: known.description.provides.clone(),
            kind,
            place,
            config: body,
            gate: None,
            gates: true,
            resource_manager: None,
            verdict: Verdict::default(),
        };
        let mut wrong = |at: String, message: &str| problems.push(Problem::new(at, message));
        match stage.config.shift_remove("name") {
            None => {}
            Some(Value::String(name)) if is_instance_name(&name) => stage.name = name,
            Some(_) => wrong(
                stage.at("name"),
                "a name has at most 63 letters, digits, `.`, `_` or `-`, the first a letter or digit",
            ),
        }
        if self.stages.iter().any(|s| s.name == stage.name) {
            let message = format!(
                "a second stage named `{}`; give each its own `name`",
                stage.name
            );
            wrong(stage.at("name"), &message);
        }
        if let Some(gate) = stage.config.shift_remove("gate") {
            stage.gate = serde_json::from_value(gate).ok();
            if stage.gate.is_none() {
                wrong(stage.at("gate"), "either `stage` or `consumer`");
            }
        }
        if stage.provides.contains_key(TASK_GATEWAY)
            && let Some(name) = stage.config.shift_remove("resource_manager")
        {
            stage.resource_manager = name.as_str().map(str::to_owned);
            if stage.resource_manager.is_none() {
                let message = "expected the name or cluster_name of a resource manager";
                wrong(stage.at("resource_manager"), message);
            }
        }
        if !is_ours(&stage.kind) && !stage.is_plugin() {
            for field in stage.config.keys().filter(|f| !is_field(f)) {
                let message = "cannot be passed as a flag of its program; use another field name";
                problems.push(Problem::key(stage.at(field), message));
            }
        }
        if stage.is_plugin() {
            resolve_plugin(&mut stage.config, source.path);
        }
        if stage.kind == RENDERER {
            for field in DRIVER_FIELDS
                .into_iter()
                .filter(|f| stage.config.contains_key(*f))
            {
                let message = "is set by the driver; leave it out";
                problems.push(Problem::key(stage.at(field), message));
            }
        }
        self.stages.push(stage);
    }
}

/// Flags of the protocol, which cannot be fields.
const FLAGS: [&str; 8] = [
    "name", "run_dir", "events", "stdin", "config", "timeout", "linger", "help",
];

fn is_field(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.chars().all(plain)
        && !FLAGS.contains(&name)
}

type Body = Map<String, Value>;

/// The kind and body of a new stage; `None` for a stage of devcluster.
pub(super) fn read_item(item: &Value) -> Result<Option<(String, Body)>, Problem> {
    let Some((key, body)) = item.as_object().and_then(|o| o.iter().next()) else {
        let message = "a stage is a mapping with one key, its kind";
        return Err(Problem::new("", message));
    };
    if DEVCLUSTERS.contains(&key.as_str()) {
        return Ok(None);
    }
    if let Some(second) = item.as_object().and_then(|o| o.keys().nth(1)) {
        let message = format!(
            "a second kind besides `{key}`; a stage has one kind, start another stage with `-`"
        );
        return Err(Problem::key(second, message));
    }
    match body {
        Value::Object(body) => Ok(Some((key.clone(), body.clone()))),
        Value::Null => Ok(Some((key.clone(), Map::new()))),
        _ => Err(Problem::new(key, "expected `key: value` lines")),
    }
}

/// Makes a relative path of `uses` absolute. A name without a slash is searched on `$PATH`.
fn resolve_plugin(body: &mut Map<String, Value>, file: &Path) {
    if let Some(Value::String(uses)) = body.get_mut("uses")
        && uses.contains('/')
        && !uses.starts_with(['/', '~', '$'])
    {
        let beside = file.parent().unwrap_or(Path::new(""));
        let path = std::path::absolute(beside)
            .unwrap_or_else(|_| PathBuf::from(beside))
            .join(&*uses);
        *uses = path.components().collect::<PathBuf>().display().to_string();
    }
}

/// The config-emit fields that the driver sets.
pub(crate) const DRIVER_FIELDS: [&str; 7] = [
    "base",
    "out",
    "upstreams",
    "format",
    "known_fields",
    "resource_managers",
    "control_socket",
];
