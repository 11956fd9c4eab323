//! `status`: shows each instance. Its lock shows whether it is alive, so that a killed stage does not appear as ready.

mod show;

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use futures::future::join_all;
use protocol::kinds::{PLUGIN, is_ours};
use protocol::program::say;
use protocol::rundir::{Phase, RunDir, Status};
use protocol::{Env, Exit, StageError};
use serde::Serialize;
use serde_json::{Map, Value};
use tokio::time::timeout;

use crate::format::Formatted;
use crate::kinds::Programs;
use crate::run_dirs::{open, run_dirs, survey};

/// How often `--watch` reads the files.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// How long `check` of a stage may take. It takes a second, unless the network is down.
const CHECK_TIMEOUT: Duration = Duration::from_secs(10);

/// The flags of `status`.
#[derive(Debug, Args)]
pub(crate) struct StatusOptions {
    /// Show every change until Ctrl-C
    #[arg(short, long)]
    watch: bool,
    /// Check for every ready stage whether its outputs are still valid
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    formatted: Formatted,
}

/// One instance.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
struct Instance {
    stage: String,
    kind: String,
    /// `None`: it was killed.
    #[serde(serialize_with = "show::phase")]
    phase: Option<Phase>,
    /// Milliseconds since 1970; null when unknown.
    since_ms: Option<u64>,
    /// Its current step or its outputs, in words.
    message: Option<String>,
    /// Whether its outputs are valid; null without a check.
    health: Option<String>,
    #[serde(rename = "gen")]
    generation: Option<u64>,
    outputs: Option<Map<String, Value>>,
    /// The last error of this run, also after recovery.
    last_error: Option<StageError>,
    pid: Option<u32>,
}

impl Instance {
    fn is_well(&self) -> bool {
        !matches!(self.phase, None | Some(Phase::Degraded | Phase::Failed))
    }
}

/// The instances of one run directory.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct RunDirStatus {
    run_dir: PathBuf,
    instances: Vec<Instance>,
}

/// Shows the status, once or with `--watch` repeatedly. Returns the exit code.
pub(crate) async fn status(
    run_dir: Option<&Path>,
    options: &StatusOptions,
    programs: &Programs<'_>,
) -> Result<u8, StageError> {
    let mut shown: Option<Vec<RunDirStatus>> = None;
    loop {
        let mut places = places(run_dir, programs.env);
        if options.check {
            check(&mut places, programs).await;
        }
        let changed = shown.as_ref() != Some(&places);
        let written = show::show(&places, options, changed);
        written.map_err(|e| StageError::io("cannot write the status", &e))?;
        if !options.watch {
            let mut all = places.iter().flat_map(|p| &p.instances);
            return Ok(match all.all(Instance::is_well) {
                true => Exit::Ok as u8,
                false => Exit::CheckFailed as u8,
            });
        }
        shown = Some(places);
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

fn places(only: Option<&Path>, env: &Env) -> Vec<RunDirStatus> {
    let mut places = Vec::new();
    for directory in run_dirs(env, only, &survey(env, only)) {
        match open(&directory) {
            Some(Ok(run_dir)) => places.push(place(&run_dir)),
            Some(Err(error)) if only.is_some() => say(&format!("warning: {error}")),
            _ => {}
        }
    }
    places.retain(|place| !place.instances.is_empty());
    places
}

fn place(run_dir: &RunDir) -> RunDirStatus {
    let names = run_dir.instances().into_iter();
    RunDirStatus {
        run_dir: run_dir.path().to_owned(),
        instances: names.filter_map(|name| instance(run_dir, name)).collect(),
    }
}

/// `None` for an instance with only a lock file.
fn instance(run_dir: &RunDir, stage: String) -> Option<Instance> {
    let holder = run_dir.holder(&stage);
    let status = run_dir.status(&stage);
    // A new run holds the lock before it writes its status.
    let is_old = |status: &Status| holder.as_ref().is_some_and(|h| *h != status.run);
    let Some(status) = status.as_ref().filter(|s| !is_old(s)) else {
        return holder.map(|_| Instance {
            stage,
            kind: status.map(|s| s.kind).unwrap_or_default(),
            phase: Some(Phase::Starting),
            ..Instance::default()
        });
    };
    let status = status.clone();
    let phase = Some(status.phase).filter(|phase| phase.is_final() || holder.is_some());
    let live = run_dir.live_outputs(&stage);
    let degraded = status.error.as_ref();
    let degraded = degraded.filter(|_| phase == Some(Phase::Degraded));
    Some(Instance {
        stage,
        kind: status.kind,
        phase,
        since_ms: Some(status.since_ms),
        message: status.message,
        health: degraded.map(|e| e.message.clone()),
        generation: live.as_ref().map(|o| o.reported.generation),
        outputs: live.map(|o| o.reported.outputs),
        last_error: status.error,
        pid: holder.map(|_| status.pid),
    })
}

/// Calls `check` for every ready instance, concurrently.
async fn check(places: &mut [RunDirStatus], programs: &Programs<'_>) {
    let asked = places.iter_mut().flat_map(|place| {
        let (run_dir, instances) = (&place.run_dir, &mut place.instances);
        let ready = instances
            .iter_mut()
            .filter(|i| i.phase == Some(Phase::Ready));
        ready.map(move |instance| (run_dir, instance))
    });
    // Do not run programs of other projects for this.
    let ours = asked.filter(|(_, instance)| is_ours(&instance.kind) || instance.kind == PLUGIN);
    let answers = ours.map(async |(run_dir, instance)| {
        let (kind, name) = (&instance.kind, &instance.stage);
        let mut command = match programs.command(kind, "check", name, run_dir) {
            Ok(command) => command,
            Err(why) => {
                instance.health = Some(format!("cannot run the check: {why}"));
                return;
            }
        };
        command.kill_on_drop(true);
        let failed = match timeout(CHECK_TIMEOUT, command.output()).await {
            Ok(Ok(output)) if output.status.success() => None,
            Ok(Ok(output)) => {
                let said = String::from_utf8_lossy(&output.stderr);
                let first = said.lines().next().unwrap_or_default();
                let text = first.split_once("error: ").map_or(first, |(_, text)| text);
                Some(text.to_owned())
            }
            Ok(Err(e)) => Some(format!("cannot run the check: {e}")),
            Err(_) => Some(format!("no answer within {} s", CHECK_TIMEOUT.as_secs())),
        };
        if failed.is_some() {
            instance.phase = Some(Phase::Degraded);
        }
        instance.health = failed.or(Some("holds".to_owned()));
    });
    join_all(answers).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_lock_without_a_status_of_its_holder_is_starting_and_a_free_lock_without_one_is_not_shown()
     {
        let dir = tempfile::tempdir().unwrap();
        let run_dir = RunDir::open(&dir.path().join("r")).unwrap();
        let lock = run_dir.lock("t", "bb").await.unwrap();
        let old = r#"{"dcs":1,"stage":"t","kind":"tunnel","run":"aa","pid":1,"phase":"ready","since_ms":5}"#;
        std::fs::write(run_dir.path().join("status/t.json"), old).unwrap();
        let starting = instance(&run_dir, "t".into()).unwrap();
        assert_eq!(
            (starting.phase, starting.since_ms),
            (Some(Phase::Starting), None)
        );
        drop(lock);
        assert_eq!(instance(&run_dir, "t".into()).unwrap().phase, None);
        std::fs::remove_file(run_dir.path().join("status/t.json")).unwrap();
        assert_eq!(place(&run_dir).instances, []);
    }
}
