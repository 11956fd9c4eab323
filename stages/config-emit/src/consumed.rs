//! The values that a running command was started with: `exec` records them, so that a change restarts its stage.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use protocol::reference::{Part, parse};
use protocol::rundir::{RunDir, is_instance_name};
use protocol::{Reports, StageError, files};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::substitute::look_up;

/// Time for a command to end that outlived its devcluster.
const TERM_TIMEOUT: Duration = Duration::from_secs(5);

/// Time for the kernel to kill it.
const KILL_TIMEOUT: Duration = Duration::from_secs(1);

/// `<run-dir>/used/<name>.json`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Consumed {
    /// The stage and its part: `app.cmd`, `app.pre1`.
    pub name: String,
    /// The stage to restart.
    pub stage: String,
    /// The values of its references, by the text of the reference.
    pub values: BTreeMap<String, Value>,
    /// The process id of the command.
    pub pid: u32,
    /// The start of its command line.
    pub command: String,
}

impl Consumed {
    pub(crate) fn new(name: &str, values: BTreeMap<String, Value>, command: &Command) -> Consumed {
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        let words: Vec<_> = words.map(|w| w.to_string_lossy()).collect();
        let stage = name.rsplit_once('.').map_or(name, |(stage, _)| stage);
        Consumed {
            name: name.to_owned(),
            stage: stage.to_owned(),
            values,
            pid: std::process::id(),
            command: words.join(" "),
        }
    }

    /// Replaces the previous record. Its command has ended, unless its devcluster died: the next devcluster does not
    /// know it by its command line, so we end it.
    pub(crate) fn replace(&self, run_dir: &RunDir) -> Result<(), StageError> {
        if !is_instance_name(&self.name) {
            let message = format!("`{}` cannot name a file", self.name);
            return Err(StageError::new(protocol::codes::USAGE, message));
        }
        let directory = run_dir.directory(DIRECTORY)?;
        let path = directory.join(format!("{}.json", self.name));
        let failed = |e| StageError::io(format!("cannot write {}", path.display()), &e);
        if let Some(before) = read(&path) {
            before.end();
        }
        let bytes = serde_json::to_vec(self).map_err(|e| StageError::internal(e.to_string()))?;
        files::replace(&path, &bytes, false).map_err(failed)
    }

    /// Whether its process still runs.
    fn is_alive(&self) -> bool {
        let pid = self.pid.to_string();
        let shown = Command::new("ps")
            .args(["-ww", "-p", &pid, "-o", "command="])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .output();
        let first = self.command.lines().next().unwrap_or_default();
        let is_first = |shown: &[u8]| shown.trim_ascii().starts_with(first.as_bytes());
        self.pid != std::process::id()
            && !first.is_empty()
            && shown.is_ok_and(|shown| is_first(&shown.stdout))
    }

    fn end(&self) {
        let Some(pid) = Pid::from_raw(self.pid.cast_signed()) else {
            return;
        };
        for (signal, patience) in [(Signal::TERM, TERM_TIMEOUT), (Signal::KILL, KILL_TIMEOUT)] {
            if !self.is_alive() || kill_process(pid, signal).is_err() {
                return;
            }
            let deadline = Instant::now() + patience;
            while self.is_alive() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    }

    /// Whether a value has changed. A value that is not available has not.
    pub(crate) fn is_stale(&self, reports: &Reports) -> bool {
        self.values.iter().any(|(written, value)| {
            let now = match parse(written).as_deref() {
                Ok([Part::Reference(reference)]) => look_up(reference, reports).ok(),
                _ => None,
            };
            now.is_some_and(|now| now != *value)
        })
    }
}

/// In the run directory.
const DIRECTORY: &str = "used";

fn read(path: &Path) -> Option<Consumed> {
    serde_json::from_slice(&files::read(path).ok()??).ok()
}

/// All records written since `since`.
pub(crate) fn records(run_dir: &RunDir, since: Option<SystemTime>) -> Vec<Consumed> {
    let entries = std::fs::read_dir(run_dir.file(DIRECTORY))
        .into_iter()
        .flatten()
        .flatten();
    let recent = entries.filter(|e| {
        let modified = e.metadata().and_then(|m| m.modified()).ok();
        since.is_none() || modified >= since
    });
    recent.filter_map(|e| read(&e.path())).collect()
}
