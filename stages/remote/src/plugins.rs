//! The plugins of a file, asked what they take and what they find out, before anything is run.

use futures::future::join_all;
use protocol::reference::shape_at;
use protocol::{Env, Problem, StageError};
use serde_json::{Map, Value};

use crate::host::{Described, describe, find};
use crate::input::Job;
use crate::plan::{Kind, NewStage, Place, Plan, Source};
use crate::problems::refused;

/// Checks the config of each plugin, and what later stages refer to, against the schemas that it describes, all side by
/// side. Every mistake at once.
pub(crate) async fn check(job: &Job, env: &Env) -> Result<(), StageError> {
    let plan = &job.compiled.plan;
    all(job, async |stage| problems(stage, plan, env).await).await
}

/// Checks what later stages refer to alone. A plugin that does not describe itself says so elsewhere.
pub(crate) async fn check_references(job: &Job, env: &Env) -> Result<(), StageError> {
    let plan = &job.compiled.plan;
    all(job, async |stage| match of(stage, env).await {
        Ok(described) => wrong_references(stage, plan, &described),
        Err(_) => Vec::new(),
    })
    .await
}

async fn all(
    job: &Job,
    problems: impl AsyncFn(&NewStage) -> Vec<Problem>,
) -> Result<(), StageError> {
    let stages = job.compiled.plan.stages.iter();
    let plugins = stages.filter(|s| s.kind == Kind::Plugin);
    let found = join_all(plugins.map(|stage| problems(stage))).await;
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

async fn of(stage: &NewStage, env: &Env) -> Result<Described, StageError> {
    let uses = env.expand(stage.config["uses"].as_str().unwrap_or_default());
    describe(&find(env, &uses)?).await
}

async fn problems(stage: &NewStage, plan: &Plan, env: &Env) -> Vec<Problem> {
    let (Place::Item(item) | Place::Before(item)) = stage.place;
    let at = |field: &str| format!("stages[{item}].plugin.{field}");
    let with = expanded(stage.config.get("with"), env);
    let found = async {
        let described = of(stage, env).await?;
        let mut problems = described.problems(&with)?;
        for problem in &mut problems {
            problem.path = at(&problem.path);
        }
        problems.extend(wrong_references(stage, plan, &described));
        Ok::<_, StageError>(problems)
    };
    found.await.unwrap_or_else(|error| {
        // What it said itself says more than a hint for everybody.
        let tail = match error.caused_by.as_slice() {
            [] => error.hint.unwrap_or_default(),
            causes => causes.join(": ").replace('\n', " "),
        };
        let what = format!("{}; {tail}", error.message);
        vec![Problem::new(at("uses"), what)]
    })
}

/// What others take from its outputs and it does not report.
fn wrong_references(stage: &NewStage, plan: &Plan, described: &Described) -> Vec<Problem> {
    let references = plan.plugin_references.iter();
    let of_it = references.filter(|r| r.instance == stage.name);
    of_it
        .filter_map(|reference| {
            let shape = shape_at(&stage.name, &described.outputs, &reference.path);
            let mut problem = reference.problem.clone();
            problem.message = shape.err()?;
            Some(problem)
        })
        .collect()
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
