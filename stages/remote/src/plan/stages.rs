//! The new stages of a file, and what is wrong with them.

use std::path::{Path, PathBuf};

use protocol::config::{self, nearest};
use protocol::rundir::is_instance_name;
use protocol::{Env, Problem, Stage};
use serde_json::{Map, Value};

use super::{Kind, NewStage, Place, Plan, Source, Wanted};
use crate::stock::KINDS as STOCK;

impl Plan {
    pub(super) fn add(
        &mut self,
        wanted: Wanted,
        source: &Source,
        env: &Env,
        problems: &mut Vec<Problem>,
    ) {
        let Wanted {
            kind,
            place,
            mut body,
        } = wanted;
        // A stage that the flat form asked for was checked where it was read.
        let at = |field: &str| match place {
            Place::Item(i) => format!("stages[{i}].{}.{field}", kind.name()),
            Place::Before(_) => field.to_owned(),
        };
        let name = match body.shift_remove("name") {
            None => kind.name().to_owned(),
            Some(Value::String(name)) if is_instance_name(&name) => name,
            Some(_) => {
                let rule = "a name has at most 63 letters, digits, `.`, `_` or `-`, the first a letter or digit";
                problems.push(Problem::new(at("name"), rule));
                kind.name().to_owned()
            }
        };
        if self.stages.iter().any(|s| s.name == name) {
            let message = format!("a second stage named `{name}`; give each its own `name`");
            problems.push(Problem::new(at("name"), message));
        }
        let gates = match body
            .shift_remove("gate")
            .as_ref()
            .map(|g| g.as_str().unwrap_or_default())
        {
            None => matches!(kind, Kind::Tunnel | Kind::Plugin),
            Some("stage") => true,
            Some("consumer") => false,
            Some(_) => {
                problems.push(Problem::new(at("gate"), "either `stage` or `consumer`"));
                true
            }
        };
        let resource_manager = match kind {
            Kind::Gateway => body.shift_remove("resource_manager"),
            _ => None,
        };
        let resource_manager = match resource_manager {
            None => None,
            Some(Value::String(name)) => Some(name),
            Some(_) => {
                let message = "expected the name or cluster_name of a resource manager";
                problems.push(Problem::new(at("resource_manager"), message));
                None
            }
        };
        if kind == Kind::Plugin {
            resolve_plugin(&mut body, source.path);
        }
        for mut problem in check(kind, &body, env) {
            problem.path = at(&problem.path);
            problems.push(problem);
        }
        self.stages.push(NewStage {
            name,
            kind,
            place,
            config: body,
            gates,
            resource_manager,
        });
    }
}

type Body = Map<String, Value>;

/// A new stage's kind and body; `None` for one of devcluster's own.
pub(super) fn read_item(item: &Value) -> Result<Option<(Kind, Body)>, Problem> {
    let Some((key, body)) = item.as_object().and_then(|o| o.iter().next()) else {
        let message = "a stage is a mapping with one key, its kind";
        return Err(Problem::new("", message));
    };
    if STOCK.contains(&key.as_str()) {
        return Ok(None);
    }
    let Some(kind) = Kind::of(key) else {
        let known = STOCK.into_iter().chain(Kind::ALL.map(Kind::name));
        let meant = nearest(key, known.clone()).map_or_else(
            || format!("known: {}", known.collect::<Vec<_>>().join(", ")),
            |meant| format!("did you mean `{meant}`?"),
        );
        let message = format!("unknown kind of stage `{key}`; {meant}");
        return Err(Problem::key(key, message));
    };
    if let Some(second) = item.as_object().and_then(|o| o.keys().nth(1)) {
        let message =
            format!("a second kind beside `{key}`; a stage has one, so begin another with `-`");
        return Err(Problem::key(second, message));
    }
    match body {
        Value::Object(body) => Ok(Some((kind, body.clone()))),
        Value::Null => Ok(Some((kind, Map::new()))),
        _ => Err(Problem::new(key, "takes `key: value` lines")),
    }
}

/// `./x` is relative to the file, a bare name is looked up on `$PATH`.
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

/// What the driver gives config-emit itself.
pub(crate) const DRIVERS: [&str; 7] = [
    "base",
    "out",
    "upstreams",
    "format",
    "known_fields",
    "resource_managers",
    "control_socket",
];

fn check(kind: Kind, body: &Map<String, Value>, env: &Env) -> Vec<Problem> {
    match kind {
        Kind::Tunnel => check_as::<tunnel::Tunnel>(body, env),
        Kind::Gateway => check_as::<gateway::Gateway>(body, env),
        Kind::Plugin => check_as::<crate::host::Host>(body, env),
        Kind::ConfigEmit => {
            let taken = DRIVERS.into_iter().filter(|f| body.contains_key(*f));
            let mut problems: Vec<_> = taken
                .map(|f| Problem::key(f, "is set by the driver; leave it out"))
                .collect();
            let mut complete = body.clone();
            complete.entry("base").or_insert_with(|| "base".into());
            complete.entry("out").or_insert_with(|| "out".into());
            problems.extend(check_as::<config_emit::ConfigEmit>(&complete, env));
            problems
        }
    }
}

fn check_as<S: Stage>(body: &Map<String, Value>, env: &Env) -> Vec<Problem> {
    config::check::<S::Config>(body, env, S::validate)
        .err()
        .unwrap_or_default()
}
