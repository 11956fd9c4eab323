//! `status`: where each instance stands. Who is alive is said by its lock, so that a killed stage does not look ready.

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

/// How often `--watch` looks. Files are read; nobody is asked.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// A stage answers `check` within a second; one on a dead network may not.
const CHECK_TIMEOUT: Duration = Duration::from_secs(10);

/// How to go about it.
#[derive(Debug, Args)]
pub(crate) struct StatusOptions {
    /// Go on, and show every change, until Ctrl-C
    #[arg(short, long)]
    watch: bool,
    /// Have every stage that is ready asked whether what it reported still holds
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
    /// None: it died without a word.
    #[serde(serialize_with = "show::phase")]
    phase: Option<Phase>,
    /// Milliseconds since 1970; null when it is not known.
    since_ms: Option<u64>,
    /// What it is doing, or what it found out, in words.
    message: Option<String>,
    /// Whether what it reported holds: null when nobody asked.
    health: Option<String>,
    #[serde(rename = "gen")]
    generation: Option<u64>,
    outputs: Option<Map<String, Value>>,
    /// The last error of this run, also when it is over.
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

/// Shows it, once or for as long as somebody watches. Returns the exit code.
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

/// `None` for one of which nothing is left but its lock file.
fn instance(run_dir: &RunDir, stage: String) -> Option<Instance> {
    let holder = run_dir.holder(&stage);
    let status = run_dir.status(&stage);
    // Between the lock and the first word of a run, the word is still that of the run before.
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
        generation: live.as_ref().map(|o| o.generation),
        outputs: live.map(|o| o.outputs),
        last_error: status.error,
        pid: holder.map(|_| status.pid),
    })
}

/// Has every instance that says that it is ready asked by its own program, side by side.
async fn check(places: &mut [RunDirStatus], programs: &Programs<'_>) {
    let asked = places.iter_mut().flat_map(|place| {
        let (run_dir, instances) = (&place.run_dir, &mut place.instances);
        let ready = instances
            .iter_mut()
            .filter(|i| i.phase == Some(Phase::Ready));
        ready.map(move |instance| (run_dir, instance))
    });
    // A stranger's program is not run only to look at it.
    let ours = asked.filter(|(_, instance)| is_ours(&instance.kind) || instance.kind == PLUGIN);
    let answers = ours.map(async |(run_dir, instance)| {
        let (kind, name) = (&instance.kind, &instance.stage);
        let mut command = match programs.command(kind, "check", name, run_dir) {
            Ok(command) => command,
            Err(why) => {
                instance.health = Some(format!("cannot be asked: {why}"));
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
            Ok(Err(e)) => Some(format!("cannot be asked: {e}")),
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
    async fn a_lock_without_a_word_of_its_holder_is_a_start_and_a_lock_file_alone_is_nothing() {
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
