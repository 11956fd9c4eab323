//! The plugins of a file, asked what they take before anything is run.

use std::path::Path;

use futures::future::join_all;
use protocol::{Env, Problem, StageError};
use serde_json::{Map, Value};

use crate::host::{describe, find};
use crate::input::Job;
use crate::plan::{Kind, NewStage, Place, Source};
use crate::problems::refused;

/// Checks the config of each plugin against the schema that it describes, all side by side. Every mistake at once.
pub(crate) async fn check(job: &Job, env: &Env) -> Result<(), StageError> {
    let stages = job.compiled.plan.stages.iter();
    let plugins = stages.filter(|stage| stage.kind == Kind::Plugin);
    let found = join_all(plugins.map(|stage| problems(stage, env))).await;
    let problems: Vec<Problem> = found.into_iter().flatten().collect();
    if problems.is_empty() {
        return Ok(());
    }
    let source = Source {
        path: &job.file,
        document: &job.document,
    };
    Err(refused(&source, problems))
}

async fn problems(stage: &NewStage, env: &Env) -> Vec<Problem> {
    let (Place::Item(item) | Place::Before(item)) = stage.place;
    let at = |field: &str| format!("stages[{item}].plugin.{field}");
    let uses = env.expand(stage.config["uses"].as_str().unwrap_or_default());
    let with = expanded(stage.config.get("with"), env);
    match of_plugin(&uses, &with, env).await {
        Ok(mut problems) => {
            for problem in &mut problems {
                problem.path = at(&problem.path);
            }
            problems
        }
        Err(error) => {
            // What it said itself says more than a hint for everybody.
            let tail = match error.caused_by.as_slice() {
                [] => error.hint.unwrap_or_default(),
                causes => causes.join(": ").replace('\n', " "),
            };
            let what = format!("{}; {tail}", error.message);
            vec![Problem::new(at("uses"), what)]
        }
    }
}

async fn of_plugin(uses: &str, with: &Value, env: &Env) -> Result<Vec<Problem>, StageError> {
    let program = find(env, uses)?;
    describe(Path::new(&program)).await?.problems(with)
}

/// As its host will expand it.
fn expanded(with: Option<&Value>, env: &Env) -> Value {
    match with {
        None => Value::Object(Map::new()),
        Some(Value::String(text)) => Value::String(env.expand(text)),
        Some(Value::Array(items)) => items.iter().map(|v| expanded(Some(v), env)).collect(),
        Some(Value::Object(map)) => {
            let fields = map.iter().map(|(k, v)| (k.clone(), expanded(Some(v), env)));
            Value::Object(fields.collect())
        }
        Some(other) => other.clone(),
    }
}
