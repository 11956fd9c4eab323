//! The plugins of a file, asked what they take and what they find out, before anything is run.

use std::path::PathBuf;

use futures::future::join_all;
use protocol::kinds::PLUGIN;
use protocol::provides::Provides;
use protocol::reference::shape_at;
use protocol::validate::Verdict;
use protocol::{Description, Env, Problem, StageError};
use serde_json::json;

use crate::host::find;
use crate::input::Job;
use crate::plan::{NewStage, Plan, directory_of, said};
use crate::problems::refused;
use crate::verbs::{describe, wrong_config};

/// Asks each plugin, all side by side: its config is checked, and what later stages refer to, and what it says of itself is
/// in the plan then. Every mistake at once.
pub(crate) async fn check(job: &mut Job, env: &Env) -> Result<(), StageError> {
    let plan = &job.compiled.plan;
    let plugins = plan.stages.iter().filter(|s| s.kind == PLUGIN);
    let judged = join_all(plugins.map(|stage| judge(stage, plan, job, env))).await;
    let (problems, verdicts): (Vec<_>, Vec<_>) = judged.into_iter().unzip();
    refuse(job, problems.into_iter().flatten().collect())?;
    let plugins = job
        .compiled
        .plan
        .stages
        .iter_mut()
        .filter(|s| s.kind == PLUGIN);
    for (stage, (provides, verdict)) in plugins.zip(verdicts.into_iter().flatten()) {
        stage.provides = provides;
        stage.verdict.exposes = verdict.exposes;
    }
    Ok(())
}

/// Checks what later stages refer to alone. A plugin that does not describe itself says so elsewhere.
pub(crate) async fn check_references(job: &Job, env: &Env) -> Result<(), StageError> {
    let plan = &job.compiled.plan;
    let plugins = plan.stages.iter().filter(|s| s.kind == PLUGIN);
    let found = plugins.map(async |stage| match of(stage, env).await {
        Ok((_, described)) => wrong_references(stage, plan, &described),
        Err(_) => Vec::new(),
    });
    let problems = join_all(found).await;
    refuse(job, problems.into_iter().flatten().collect())
}

fn refuse(job: &Job, problems: Vec<Problem>) -> Result<(), StageError> {
    if problems.is_empty() {
        return Ok(());
    }
    Err(refused(&job.source(), problems))
}

async fn of(stage: &NewStage, env: &Env) -> Result<(PathBuf, Description), StageError> {
    let uses = env.expand(stage.config["uses"].as_str().unwrap_or_default());
    let program = find(env, &uses)?;
    let described = describe(&program, env).await?;
    Ok((program, described))
}

/// What is wrong with a plugin's stage; where nothing is, what the outputs of the plugin mean and what it exposes.
async fn judge(
    stage: &NewStage,
    plan: &Plan,
    job: &Job,
    env: &Env,
) -> (Vec<Problem>, Option<(Provides, Verdict)>) {
    let with = stage.config.get("with").cloned();
    let with = with.unwrap_or_else(|| json!({}));
    let dir = directory_of(&job.file);
    let judged = async {
        let (program, described) = of(stage, env).await?;
        let (found, verdict) =
            wrong_config(&program, &described, &stage.name, &with, &dir, env).await?;
        let placed = found.into_iter().map(|p| p.below(&stage.at("with")));
        let problems = placed.chain(wrong_references(stage, plan, &described));
        Ok::<_, StageError>((problems.collect(), Some((described.provides, verdict))))
    };
    let judged = judged.await;
    judged.unwrap_or_else(|error| (vec![Problem::new(stage.at("uses"), said(error))], None))
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
