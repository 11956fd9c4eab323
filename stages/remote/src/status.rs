//! `status`: where each instance stands. Who is alive is said by its lock, so that a killed stage does not look ready.

mod show;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use futures::future::join_all;
use protocol::kinds::{PLUGIN, is_ours};
use protocol::rundir::{Phase, RunDir};
use protocol::{Env, Exit, StageError};
use serde::Serialize;
use serde_json::{Map, Value};
use tokio::time::timeout;

use crate::format::Format;
use crate::gc::program_of;
use crate::kinds::Programs;
use crate::places::run_dirs;
use protocol::program::say;

/// How often `--watch` looks. Files are read; nobody is asked.
const LOOK: Duration = Duration::from_millis(500);

/// A stage answers `check` within a second; one on a dead network may not.
const CHECK: Duration = Duration::from_secs(10);

/// How to go about it.
#[derive(Debug)]
pub struct Wishes {
    /// Only this run directory.
    pub run_dir: Option<PathBuf>,
    /// Go on, and show every change.
    pub watch: bool,
    /// Have every instance that is ready asked whether what it reported holds.
    pub check: bool,
    /// How to show it.
    pub format: Format,
}

/// Where an instance stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Standing {
    Starting,
    Preparing,
    Ready,
    Degraded,
    Stopping,
    Stopped,
    Failed,
    /// It died without a word.
    Killed,
}

impl Standing {
    fn is_well(self) -> bool {
        !matches!(
            self,
            Standing::Degraded | Standing::Failed | Standing::Killed
        )
    }
}

/// One instance.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Instance {
    stage: String,
    kind: String,
    phase: Standing,
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

/// The instances of one run directory.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Place {
    run_dir: PathBuf,
    instances: Vec<Instance>,
}

/// Shows it, once or for as long as somebody watches. Returns the exit code.
pub async fn status(wishes: &Wishes, programs: &Programs<'_>) -> Result<u8, StageError> {
    let env = programs.env;
    let mut shown: Option<Vec<Place>> = None;
    loop {
        let mut places = places(wishes.run_dir.as_deref(), env);
        if wishes.check {
            check(&mut places, programs).await;
        }
        let changed = shown.as_ref() != Some(&places);
        let written = show::show(&places, wishes, changed);
        written.map_err(|e| StageError::io("cannot write the status", &e))?;
        if !wishes.watch {
            let all_well = places
                .iter()
                .flat_map(|p| &p.instances)
                .all(|i| i.phase.is_well());
            return Ok(if all_well {
                Exit::Ok
            } else {
                Exit::CheckFailed
            } as u8);
        }
        shown = Some(places);
        tokio::time::sleep(LOOK).await;
    }
}

fn places(only: Option<&Path>, env: &Env) -> Vec<Place> {
    run_dirs(env, only)
        .into_iter()
        // Looking is not to make a directory.
        .filter(|directory| directory.is_dir())
        .filter_map(|directory| match RunDir::open(&directory) {
            Ok(run_dir) => Some(place(&run_dir)),
            Err(error) => {
                if only.is_some() {
                    say(&format!("warning: {error}"));
                }
                None
            }
        })
        .filter(|place| !place.instances.is_empty())
        .collect()
}

fn place(run_dir: &RunDir) -> Place {
    let names = run_dir.instances();
    Place {
        run_dir: run_dir.path().to_owned(),
        instances: names
            .iter()
            .filter_map(|name| instance(run_dir, name))
            .collect(),
    }
}

/// `None` for one of which nothing is left but its lock file.
fn instance(run_dir: &RunDir, name: &str) -> Option<Instance> {
    let holder = run_dir.holder(name);
    let status = run_dir.status(name);
    // Between the lock and the first word of a run, the word is still that of the run before.
    let of_holder = status
        .clone()
        .filter(|s| holder.as_ref().is_none_or(|h| *h == s.run));
    let Some(status) = of_holder else {
        return holder.map(|_| Instance {
            stage: name.to_owned(),
            kind: status.map(|s| s.kind).unwrap_or_default(),
            phase: Standing::Starting,
            since_ms: None,
            message: None,
            health: None,
            generation: None,
            outputs: None,
            last_error: None,
            pid: None,
        });
    };
    let phase = match (holder.is_some(), status.phase) {
        (_, Phase::Stopped) => Standing::Stopped,
        (_, Phase::Failed) => Standing::Failed,
        (false, _) => Standing::Killed,
        (true, Phase::Starting) => Standing::Starting,
        (true, Phase::Preparing) => Standing::Preparing,
        (true, Phase::Ready) => Standing::Ready,
        (true, Phase::Degraded) => Standing::Degraded,
        (true, Phase::Stopping) => Standing::Stopping,
    };
    let live = run_dir.live_outputs(name);
    let health = match phase {
        Standing::Degraded => status.error.as_ref().map(|e| e.message.clone()),
        _ => None,
    };
    Some(Instance {
        stage: name.to_owned(),
        kind: status.kind,
        phase,
        since_ms: Some(status.since_ms),
        message: status.message,
        health,
        generation: live.as_ref().map(|o| o.generation),
        outputs: live.map(|o| o.outputs),
        last_error: status.error,
        pid: holder.is_some().then_some(status.pid),
    })
}

/// Has every instance that says that it is ready asked by its own program, side by side.
async fn check(places: &mut [Place], programs: &Programs<'_>) {
    let asked = places.iter_mut().flat_map(|place| {
        let run_dir = place.run_dir.clone();
        let ready = place
            .instances
            .iter_mut()
            .filter(|i| i.phase == Standing::Ready);
        ready.map(move |instance| (run_dir.clone(), instance))
    });
    // A stranger's program is not run only to look at it.
    let ours = asked.filter(|(_, instance)| is_ours(&instance.kind) || instance.kind == PLUGIN);
    let answers = ours.map(async |(run_dir, instance)| {
        let mut command = match program_of(&instance.kind, programs) {
            Ok(command) => command,
            Err(why) => {
                instance.health = Some(format!("cannot be asked: {why}"));
                return;
            }
        };
        command
            .args([
                "check",
                "--events=none",
                "--name",
                &instance.stage,
                "--run-dir",
            ])
            .arg(run_dir)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        instance.health = Some(match timeout(CHECK, command.output()).await {
            Ok(Ok(output)) if output.status.success() => "holds".to_owned(),
            Ok(Ok(output)) => {
                let said = String::from_utf8_lossy(&output.stderr);
                let first = said.lines().next().unwrap_or_default();
                first
                    .split_once("error: ")
                    .map_or(first, |(_, text)| text)
                    .to_owned()
            }
            Ok(Err(e)) => format!("cannot be asked: {e}"),
            Err(_) => format!("no answer within {} s", CHECK.as_secs()),
        });
        if instance.health.as_deref() != Some("holds") {
            instance.phase = Standing::Degraded;
        }
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
        let starting = instance(&run_dir, "t").unwrap();
        assert_eq!(
            (starting.phase, starting.since_ms),
            (Standing::Starting, None)
        );
        drop(lock);
        assert_eq!(instance(&run_dir, "t").unwrap().phase, Standing::Killed);
        std::fs::remove_file(run_dir.path().join("status/t.json")).unwrap();
        assert_eq!(place(&run_dir).instances, []);
    }
}
