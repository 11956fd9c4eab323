//! Checks the plugins of a file before anything runs.

use std::path::PathBuf;

use futures::future::join_all;
use protocol::provides::Provides;
use protocol::reference::shape_at;
use protocol::validate::Verdict;
use protocol::{Description, Env, Problem, StageError};
use serde_json::json;

use crate::host::find;
use crate::input::CompiledInput;
use crate::plan::{NewStage, Plan, directory_of, error_text};
use crate::problems::refused;
use crate::verbs::{describe, wrong_config};

/// Checks the config of each plugin and the references to its outputs, the plugins concurrently. Adds their descriptions to
/// the plan. The error lists every mistake.
pub(crate) async fn check(input: &mut CompiledInput, env: &Env) -> Result<(), StageError> {
    let plan = &input.compiled.plan;
    let checked = join_all(
        plan.plugins()
            .map(|stage| check_stage(stage, plan, input, env)),
    )
    .await;
    let (problems, verdicts): (Vec<_>, Vec<_>) = checked.into_iter().unzip();
    refuse(input, problems.into_iter().flatten().collect())?;
    let stages = input.compiled.plan.stages.iter_mut();
    let plugins = stages.filter(|s| s.is_plugin());
    for (stage, (provides, verdict)) in plugins.zip(verdicts.into_iter().flatten()) {
        stage.provides = provides;
        stage.verdict.exposes = verdict.exposes;
    }
    Ok(())
}

/// Checks only the references to outputs of plugins. A failed `describe` is reported elsewhere.
pub(crate) async fn check_references(input: &CompiledInput, env: &Env) -> Result<(), StageError> {
    let plan = &input.compiled.plan;
    let found = plan
        .plugins()
        .map(async |stage| match find_and_describe(stage, env).await {
            Ok((_, described)) => wrong_references(stage, plan, &described),
            Err(_) => Vec::new(),
        });
    let problems = join_all(found).await;
    refuse(input, problems.into_iter().flatten().collect())
}

impl Plan {
    fn plugins(&self) -> impl Iterator<Item = &NewStage> {
        self.stages.iter().filter(|s| s.is_plugin())
    }
}

fn refuse(input: &CompiledInput, problems: Vec<Problem>) -> Result<(), StageError> {
    if problems.is_empty() {
        return Ok(());
    }
    Err(refused(&input.source(), problems))
}

async fn find_and_describe(
    stage: &NewStage,
    env: &Env,
) -> Result<(PathBuf, Description), StageError> {
    let uses = env.expand(stage.config["uses"].as_str().unwrap_or_default());
    let program = find(env, &uses)?;
    let described = describe(&program, env).await?;
    Ok((program, described))
}

/// The problems of a plugin stage. Without problems, also the meaning of its outputs and its verdict.
async fn check_stage(
    stage: &NewStage,
    plan: &Plan,
    input: &CompiledInput,
    env: &Env,
) -> (Vec<Problem>, Option<(Provides, Verdict)>) {
    let with = stage.config.get("with").cloned();
    let with = with.unwrap_or_else(|| json!({}));
    let dir = directory_of(&input.file);
    let checked = async {
        let (program, described) = find_and_describe(stage, env).await?;
        let (found, verdict) =
            wrong_config(&program, &described, &stage.name, &with, &dir, env).await?;
        let placed = found.into_iter().map(|p| p.below(&stage.at("with")));
        let problems = placed.chain(wrong_references(stage, plan, &described));
        Ok::<_, StageError>((problems.collect(), Some((described.provides, verdict))))
    };
    let checked = checked.await;
    checked.unwrap_or_else(|error| {
        (
            vec![Problem::new(stage.at("uses"), error_text(error))],
            None,
        )
    })
}

/// References to outputs that the plugin does not report.
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
