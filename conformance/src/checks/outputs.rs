//! Checks of the outputs.

use std::os::unix::fs::PermissionsExt;

use protocol::rundir::OutputsFile;

use super::prelude::*;

/// How often a momentary property is checked: a late file may exist when the kit reads it.
const ATTEMPTS: usize = 3;

checks! {
    "outputs.before_ready" => before_ready,
    "outputs.schema" => schema,
    "outputs.file" => |s| often(s, file),
    "outputs.stale_gone" => |s| often(s, stale_gone),
}

async fn often<'a>(scene: Scene<'a>, check: impl AsyncFn(Scene<'a>) -> Verdict) -> Verdict {
    for _ in 0..ATTEMPTS {
        check(scene.another().await?).await?;
    }
    Ok(())
}

async fn reported(scene: &Scene<'_>) -> Result<(Running, Value, Value)> {
    let mut running = scene.started().await?;
    let ready = running.ready().await?;
    let outputs = running.last("outputs");
    ensure!(
        !outputs.is_null(),
        "it sent `ready` without `outputs` before"
    );
    Ok((running, outputs, ready))
}

async fn before_ready(scene: Scene<'_>) -> Verdict {
    let (mut running, outputs, ready) = reported(&scene).await?;
    let messages = running.messages();
    let at = |kind: &str| messages.iter().position(|m| m["type"] == kind);
    ensure!(at("outputs") < at("ready"), "`ready` came before `outputs`");
    agree("run", [("`outputs`", &outputs), ("`ready`", &ready)])?;
    agree("gen", [("`outputs`", &outputs), ("`ready`", &ready)])?;
    let hello = running.last("hello");
    agree("run", [("`hello`", &hello), ("`ready`", &ready)])?;
    let generation = &ready["gen"];
    ensure!(
        generation.is_u64(),
        "`gen` is {generation}, and must be a number"
    );
    running.stop().await.map(drop)
}

async fn schema(scene: Scene<'_>) -> Verdict {
    let (mut running, outputs, _) = reported(&scene).await?;
    let schema = &scene.subject.description["outputs"];
    let validator = jsonschema::validator_for(schema)
        .map_err(|e| anyhow!("the outputs schema of `describe` is not a valid JSON Schema: {e}"))?;
    let outputs = &outputs["outputs"];
    if let Err(e) = validator.validate(outputs) {
        bail!("{e}, at `{}` in {outputs}", e.instance_path());
    }
    running.stop().await.map(drop)
}

async fn file(scene: Scene<'_>) -> Verdict {
    let mut running = scene.listed()?;
    let ready = running.ready().await?;
    // Read at once: a later file is too late.
    let file = scene.outputs_file().with_context(|| {
        format!("the run directory has no outputs/{INSTANCE}.json when `ready` is written")
    })?;
    let said = running.last("outputs");
    for key in ["dcs", "stage", "kind", "run", "gen", "outputs"] {
        agree(key, [("the file", &file), ("the `outputs` message", &said)])?;
    }
    serde_json::from_value::<OutputsFile>(file)
        .map_err(|e| anyhow!("the outputs file is not valid: {e}"))?;
    let mode = std::fs::metadata(scene.outputs_path())?
        .permissions()
        .mode()
        & 0o777;
    ensure!(
        mode == 0o600,
        "the outputs file has mode {mode:o}, and must have 600"
    );
    let holder = scene.open_run_dir()?.holder(INSTANCE);
    let run = &ready["run"];
    ensure!(
        holder.as_deref() == run.as_str(),
        "`ready` is from run {run} and the lock file names {holder:?}, or the lock is free"
    );
    running.stop().await.map(drop)
}

async fn stale_gone(scene: Scene<'_>) -> Verdict {
    let mut first = scene.ready().await?;
    let stale = first.last("hello")["run"].clone();
    first.end_by(Signal::KILL).await?;
    scene.no_process_is_left().await?;
    let mut second = scene.listed()?;
    let run_dir = scene.open_run_dir()?;
    let run = second.next("hello").await?["run"].clone();
    let holds = || (run_dir.holder(INSTANCE).as_deref() == run.as_str()).then_some(());
    let locked = second.eventually(second.patience, holds).await;
    locked.context("it did not acquire the lock")?;
    let gone = || {
        let is_gone = scene.outputs_file().is_none_or(|f| f["run"] != stale);
        is_gone.then_some(())
    };
    // It holds the lock, and removes the file before anything else.
    let removed = second.eventually(Duration::from_millis(100), gone).await;
    removed.context("it holds the lock, and the outputs file of the dead run still exists")?;
    second.ready().await?;
    let now = &scene.outputs_file().unwrap_or_default()["run"];
    ensure!(
        *now == run,
        "it is ready, and the outputs file names run {now}"
    );
    second.stop().await.map(drop)
}
