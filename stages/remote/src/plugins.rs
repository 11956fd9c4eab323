//! The plugins of a file, asked what they take and what they find out, before anything is run.

use std::path::{Path, PathBuf};

use futures::future::join_all;
use protocol::kinds::PLUGIN;
use protocol::message::VERSION;
use protocol::reference::shape_at;
use protocol::validate::{Instance, Request, RequestType, Unknown};
use protocol::{Description, Env, Problem, StageError};
use serde_json::{Value, json};

use crate::host::find;
use crate::input::Job;
use crate::kinds::{ask, describe};
use crate::plan::{NewStage, Plan, Source, said, unknown};
use crate::problems::refused;
use crate::schema_check;

/// Checks the config of each plugin, and what later stages refer to, against the schemas that it describes, all side by
/// side. Every mistake at once.
pub(crate) async fn check(job: &Job, env: &Env) -> Result<(), StageError> {
    let plan = &job.compiled.plan;
    all(job, async |stage| problems(stage, plan, job, env).await).await
}

/// Checks what later stages refer to alone. A plugin that does not describe itself says so elsewhere.
pub(crate) async fn check_references(job: &Job, env: &Env) -> Result<(), StageError> {
    let plan = &job.compiled.plan;
    all(job, async |stage| match of(stage, env).await {
        Ok((_, described)) => wrong_references(stage, plan, &described),
        Err(_) => Vec::new(),
    })
    .await
}

async fn all(
    job: &Job,
    problems: impl AsyncFn(&NewStage) -> Vec<Problem>,
) -> Result<(), StageError> {
    let stages = job.compiled.plan.stages.iter();
    let plugins = stages.filter(|s| s.kind == PLUGIN);
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

async fn of(stage: &NewStage, env: &Env) -> Result<(PathBuf, Description), StageError> {
    let uses = env.expand(stage.config["uses"].as_str().unwrap_or_default());
    let program = find(env, &uses)?;
    let described = describe(&program, env).await?;
    Ok((program, described))
}

async fn problems(stage: &NewStage, plan: &Plan, job: &Job, env: &Env) -> Vec<Problem> {
    let with = stage
        .config
        .get("with")
        .cloned()
        .unwrap_or_else(|| json!({}));
    let dir = job.file.parent().unwrap_or(Path::new(""));
    let found = async {
        let (program, described) = of(stage, env).await?;
        let found = wrong_config(&program, &described, &stage.name, &with, dir, env).await?;
        let placed = found.into_iter().map(|p| p.below(&stage.at("with")));
        Ok::<_, StageError>(
            placed
                .chain(wrong_references(stage, plan, &described))
                .collect(),
        )
    };
    let found = found.await;
    found.unwrap_or_else(|error| vec![Problem::new(stage.at("uses"), said(error))])
}

/// What a plugin itself, and then its schema, find wrong with a config.
pub(crate) async fn wrong_config(
    program: &Path,
    described: &Description,
    name: &str,
    with: &Value,
    dir: &Path,
    env: &Env,
) -> Result<Vec<Problem>, StageError> {
    let open = unknown(with);
    let by_schema =
        schema_check::problems(&described.config, with, &Unknown::from_pointers(&open))?;
    let mut problems = Vec::new();
    if let (true, Some(config)) = (described.has("validate"), with.as_object()) {
        let request = Request {
            dcs: VERSION,
            type_: RequestType::Validate,
            dir: dir.to_owned(),
            stages: Vec::new(),
            instances: vec![Instance {
                stage: name.to_owned(),
                config: config.clone(),
                unknown: open,
            }],
            targets: Vec::new(),
        };
        let answer = ask(program, &request, env).await?;
        problems.extend(
            answer
                .instances
                .iter()
                .flat_map(|v| &v.problems)
                .map(Problem::from),
        );
    }
    let told: Vec<String> = problems.iter().map(|p| p.path.clone()).collect();
    problems.extend(by_schema.into_iter().filter(|p| !told.contains(&p.path)));
    Ok(problems)
}

/// What others take from its outputs and it does not report.
fn wrong_references(stage: &NewStage, plan: &Plan, described: &Description) -> Vec<Problem> {
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
