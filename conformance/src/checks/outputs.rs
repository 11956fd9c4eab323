//! What was found out is there before `ready` says so.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use futures::FutureExt;
use protocol::rundir::{OutputsFile, RunDir};
use serde_json::Value;

use crate::running::Running;
use crate::scene::{Scene, eventually};
use crate::subject::{INSTANCE, Subject};
use crate::verdict::{Finding, Verdict, demand, failed};
use crate::{Check, Level};

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "outputs.before_ready",
        level: Level::Plugin,
        title: "outputs come before the ready of the same run and gen",
        section: "what-a-stage-says",
        run: |s| before_ready(s).boxed_local(),
    },
    Check {
        id: "outputs.schema",
        level: Level::Plugin,
        title: "the outputs fit the schema that describe prints",
        section: "describe",
        run: |s| schema(s).boxed_local(),
    },
    Check {
        id: "outputs.file",
        level: Level::Stage,
        title: "the outputs file is there when ready is written, and says the same",
        section: "the-run-directory",
        run: |s| file(s).boxed_local(),
    },
    Check {
        id: "outputs.stale_gone",
        level: Level::Stage,
        title: "the outputs file of a dead run is gone when the next one holds the lock",
        section: "the-run-directory",
        run: |s| stale_gone(s).boxed_local(),
    },
];

async fn reported(scene: &Scene<'_>) -> Result<(Running, Value, Value), Finding> {
    let mut running = scene.started().await?;
    let ready = running.ready().await?;
    let Some(outputs) = running.last("outputs") else {
        return failed("it said `ready` without `outputs` before");
    };
    Ok((running, outputs, ready))
}

async fn before_ready(subject: &Subject) -> Verdict {
    let scene = Scene::new(subject)?;
    let (mut running, outputs, ready) = reported(&scene).await?;
    let messages = running.messages();
    let at = |kind: &str| messages.iter().position(|m| m["type"] == kind);
    demand(at("outputs") < at("ready"), || {
        "`ready` came before `outputs`".to_owned()
    })?;
    for key in ["run", "gen"] {
        demand(outputs[key] == ready[key], || {
            format!(
                "`{key}` is {} in `outputs` and {} in `ready`",
                outputs[key], ready[key]
            )
        })?;
    }
    let hello = running.last("hello").unwrap_or_default();
    demand(hello["run"] == ready["run"], || {
        format!("another `run` than in `hello`: {ready}")
    })?;
    demand(ready["gen"].is_u64(), || {
        format!("`gen` is {}, and has to be a number", ready["gen"])
    })?;
    running.stop().await.map(drop)
}

async fn schema(subject: &Subject) -> Verdict {
    let scene = Scene::new(subject)?;
    let (mut running, outputs, _) = reported(&scene).await?;
    let schema = &subject.description["outputs"];
    let validator = match jsonschema::validator_for(schema) {
        Ok(validator) => validator,
        Err(e) => {
            return failed(format!(
                "the outputs schema of `describe` is no valid JSON Schema: {e}"
            ));
        }
    };
    if let Err(e) = validator.validate(&outputs["outputs"]) {
        return failed(format!(
            "{e}, at `{}` in {}",
            e.instance_path(),
            outputs["outputs"]
        ));
    }
    running.stop().await.map(drop)
}

async fn file(subject: &Subject) -> Verdict {
    let scene = Scene::new(subject)?;
    let mut running = scene.listed()?;
    let ready = running.ready().await?;
    // At once: what comes later comes too late.
    let Some(file) = scene.outputs_file() else {
        return failed(format!(
            "there is no outputs/{INSTANCE}.json in the run directory when `ready` is written"
        ));
    };
    let outputs = running.last("outputs").unwrap_or_default();
    for key in ["dcs", "stage", "kind", "run", "gen", "outputs"] {
        demand(file[key] == outputs[key], || {
            format!(
                "`{key}` is {} in the file and {} in the `outputs` message",
                file[key], outputs[key]
            )
        })?;
    }
    if let Err(e) = serde_json::from_value::<OutputsFile>(file) {
        return failed(format!("nobody can read the outputs file: {e}"));
    }
    let path = scene
        .run_dir()
        .join("outputs")
        .join(format!("{INSTANCE}.json"));
    let mode = std::fs::metadata(path)?.permissions().mode() & 0o777;
    demand(mode == 0o600, || {
        format!("the outputs file has mode {mode:o}, and has to have 600")
    })?;
    let holder = open(&scene)?.holder(INSTANCE);
    demand(holder.as_deref() == ready["run"].as_str(), || {
        format!(
            "`ready` is of run {} and the lock file names {holder:?}; a lock that nobody holds names none",
            ready["run"]
        )
    })?;
    running.stop().await.map(drop)
}

pub(super) fn open(scene: &Scene) -> Result<RunDir, Finding> {
    RunDir::open(&scene.run_dir()).or_else(|e| failed(e.message))
}

async fn stale_gone(subject: &Subject) -> Verdict {
    let scene = Scene::new(subject)?;
    let mut first = scene.ready().await?;
    let stale = first.last("hello").unwrap_or_default()["run"].clone();
    first.kill(false);
    first.ended(crate::scene::SOON).await?;
    scene.no_process_is_left().await?;
    let mut second = scene.listed()?;
    let run_dir = open(&scene)?;
    let run = second.next("hello").await?["run"].clone();
    let holds = || (run_dir.holder(INSTANCE).as_deref() == run.as_str()).then_some(());
    if eventually(subject.patience, holds).await.is_none() {
        return failed("it did not take the lock");
    }
    let gone = || {
        scene
            .outputs_file()
            .is_none_or(|f| f["run"] != stale)
            .then_some(())
    };
    // It has the lock, and puts the file aside before anything else.
    if eventually(Duration::from_millis(100), gone).await.is_none() {
        return failed("it holds the lock, and the outputs file of the dead run is still there");
    }
    second.ready().await?;
    let now = scene.outputs_file().unwrap_or_default();
    demand(now["run"] == run, || {
        format!("it is ready and the outputs file names run {}", now["run"])
    })?;
    second.stop().await.map(drop)
}
