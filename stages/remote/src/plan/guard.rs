//! Turns on the guard of every port that leads to a master of the file.

use protocol::validate::Exposure;
use serde_json::{Map, Value};

use super::Plan;

/// What the guard in front of a master examines.
const DETERMINED: &str = "determined";

/// A master of the file.
#[derive(Clone, Debug)]
pub(crate) struct Master {
    /// Stage name.
    pub(crate) name: String,
    /// Its item in the list.
    pub(crate) item: usize,
    /// The port on which it listens, if known.
    port: Option<u16>,
    /// The instances whose guards examine it.
    pub(crate) guards: Vec<String>,
}

impl Master {
    /// Whether this port of a stage leads, or may lead, to the master.
    pub(crate) fn is_behind(&self, exposure: &Exposure) -> bool {
        let ports = self.port.zip(exposure.local_port);
        ports.is_none_or(|(own, exposed)| own == exposed)
    }
}

impl Plan {
    /// Finds the masters, and turns on the guards in front of them that the file does not set.
    pub(super) fn guard_masters(&mut self, value: &Value) {
        let items = value["stages"].as_array().into_iter().flatten();
        let masters = items.enumerate().filter_map(|(item, stage)| {
            let body = stage.get("master")?;
            let name = body["name"].as_str().unwrap_or("master").to_owned();
            let known = self.targets.iter().find(|t| t.stage == name);
            let known = known.and_then(|t| t.port);
            let written = body["config_file"]["port"].as_u64();
            let port = known.or(written.and_then(|port| u16::try_from(port).ok()));
            let guards = Vec::new();
            Some(Master {
                name,
                item,
                port,
                guards,
            })
        });
        self.masters = masters.collect();
        for stage in &mut self.stages {
            for exposure in stage.verdict.exposes.iter_mut().flatten() {
                let masters = self.masters.iter_mut();
                let mut behind: Vec<&mut Master> = masters
                    .filter(|master| master.is_behind(exposure))
                    .collect();
                if behind.is_empty() {
                    continue;
                }
                if exposure.guard.is_none()
                    && let Some(field) = exposure.guard_field.take()
                    && set(&mut stage.config, &field, DETERMINED)
                {
                    exposure.guard = Some(DETERMINED.to_owned());
                }
                let is_guarded = exposure.guard.as_deref() == Some(DETERMINED);
                for master in behind.iter_mut().filter(|_| is_guarded) {
                    if !master.guards.contains(&stage.name) {
                        master.guards.push(stage.name.clone());
                    }
                }
            }
        }
    }
}

/// Sets a field of a config. Returns whether the object that contains it is there.
fn set(config: &mut Map<String, Value>, pointer: &str, value: &str) -> bool {
    let Some((parent, field)) = pointer.rsplit_once('/') else {
        return false;
    };
    let mut whole = Value::Object(std::mem::take(config));
    let object = whole.pointer_mut(parent).and_then(Value::as_object_mut);
    let is_set = object.map(|object| object.insert(field.to_owned(), value.into()));
    if let Value::Object(whole) = whole {
        *config = whole;
    }
    is_set.is_some()
}
