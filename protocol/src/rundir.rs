//! The run directory, shared by the stages of one devcluster. A lock shows which instance is alive, never a bare PID.
//!
//! ```text
//! <run-dir>/<instance>.lock            flock held while the instance lives; holds its run id
//! <run-dir>/outputs/<instance>.json    its outputs
//! <run-dir>/outputs/.<instance>.prev   the outputs of the previous run
//! <run-dir>/status/<instance>.json     its phase, step and last error
//! ```

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::changes::Changes;
use crate::codes;
use crate::error::StageError;
use crate::files::{self, Locked};
use crate::message::Outputs;

/// How long `run` waits for the lock of a previous run that is stopping.
pub const LOCK_TIMEOUT: Duration = Duration::from_secs(5);

/// The largest file. Outputs fit into a line of the wire; the file holds them twice, indented, and is still smaller.
const MAX_OUTPUTS: u64 = 1 << 20;
/// The most values in a file. A value takes about seventy bytes of memory, and as little as two in the file. Outputs that
/// fit into two lines of the wire have fewer.
const MAX_COMMAS: usize = 1 << 17;

/// The most bytes read from a lock file.
const MAX_HOLDER: u64 = 4096;

const LOCK_RETRY: Duration = Duration::from_millis(25);

/// A directory that only this user can use.
#[derive(Clone, Debug)]
pub struct RunDir(PathBuf);

/// The outputs of an instance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "<run-dir>/outputs/<instance>.json")]
pub struct OutputsFile {
    /// Protocol version.
    pub dcs: u64,
    /// The report of the instance.
    #[serde(flatten)]
    pub reported: Outputs,
    /// Paths of 0600 files that hold secrets, by name.
    #[serde(default)]
    pub secrets: Map<String, Value>,
    /// The outputs of the previous run, if any.
    #[serde(default)]
    pub prev: Option<Map<String, Value>>,
}

/// A phase in the life of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// It reads its config and acquires its lock.
    Starting,
    /// It prepares its outputs.
    Preparing,
    /// The outputs are valid.
    Ready,
    /// The outputs are not valid at the moment.
    Degraded,
    /// It releases what it holds.
    Stopping,
    /// It ended as requested.
    Stopped,
    /// It ended with an error.
    Failed,
}

impl Phase {
    /// Whether the run has ended.
    pub fn is_final(self) -> bool {
        matches!(self, Phase::Stopped | Phase::Failed)
    }
}

/// The status of an instance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "<run-dir>/status/<instance>.json")]
pub struct Status {
    /// Protocol version.
    pub dcs: u64,
    /// Instance name.
    pub stage: String,
    /// Kind of stage.
    pub kind: String,
    /// The run that wrote it.
    pub run: String,
    /// Process id of that run, for people.
    pub pid: u32,
    /// The current phase.
    pub phase: Phase,
    /// When the phase began, in milliseconds since 1970.
    pub since_ms: u64,
    /// The current step, in words.
    #[serde(default)]
    pub message: Option<String>,
    /// The last error.
    #[serde(default)]
    pub error: Option<StageError>,
}

/// The lock of an instance. Dropping it releases it; the kernel releases it when the process dies.
#[derive(Debug)]
pub struct Lock(Locked);

impl Lock {
    /// Whether no other process can acquire it: its file is still at its path.
    pub(crate) fn is_current(&self) -> bool {
        self.0.is_current()
    }
}

/// Tries to acquire a lock as long as a run that is stopping may hold it. `None`: it is not free.
pub(crate) async fn until_free<T>(
    mut acquire: impl FnMut() -> Result<Option<T>, StageError>,
) -> Result<Option<T>, StageError> {
    let deadline = tokio::time::Instant::now() + LOCK_TIMEOUT;
    loop {
        let acquired = acquire()?;
        if acquired.is_some() || tokio::time::Instant::now() >= deadline {
            return Ok(acquired);
        }
        tokio::time::sleep(LOCK_RETRY).await;
    }
}

impl RunDir {
    /// Creates the directory, or checks that only this user can use it.
    pub fn open(path: &Path) -> Result<RunDir, StageError> {
        let run_dir = RunDir(files::private_dir(path, "run directory")?);
        for inside in ["outputs", "status"] {
            run_dir.directory(inside)?;
        }
        Ok(run_dir)
    }

    /// A directory inside it.
    pub fn directory(&self, name: &str) -> Result<PathBuf, StageError> {
        files::private_dir(&self.0.join(name), "run directory")
    }

    /// The canonical path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A file inside it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Waits until the lock, the outputs or the status of an instance may have changed. The first call starts the watch and
    /// returns: the change may have come before it.
    pub(crate) async fn next_change(&self, watch: &mut Option<Changes>) {
        match watch {
            Some(changes) => changes.next().await,
            None => {
                let inside = ["outputs", "status"].map(|name| self.0.join(name));
                let [outputs, status] = inside;
                *watch = Some(Changes::watch(&[self.0.clone(), outputs, status]));
            }
        }
    }

    /// The outputs file of an instance.
    pub fn outputs_path(&self, instance: &str) -> PathBuf {
        self.0.join("outputs").join(format!("{instance}.json"))
    }

    fn previous_path(&self, instance: &str) -> PathBuf {
        self.0.join("outputs").join(format!(".{instance}.prev"))
    }

    fn status_path(&self, instance: &str) -> PathBuf {
        self.0.join("status").join(format!("{instance}.json"))
    }

    fn lock_path(&self, instance: &str) -> PathBuf {
        self.0.join(format!("{instance}.lock"))
    }

    /// Acquires the lock of an instance. Waits for a previous run that is stopping.
    pub async fn lock(&self, instance: &str, run: &str) -> Result<Lock, StageError> {
        let path = self.lock_path(instance);
        let failed =
            |e: std::io::Error| StageError::io(format!("cannot lock {}", path.display()), &e);
        let locked = until_free(|| Locked::try_at(&path).map_err(failed)).await?;
        let mut locked = locked.ok_or_else(|| self.locked(instance))?;
        let holder = json!({"run": run}).to_string();
        let written = locked.file.set_len(0);
        let written = written.and_then(|()| locked.file.write_all(holder.as_bytes()));
        written.map_err(failed)?;
        Ok(Lock(locked))
    }

    pub(crate) fn locked(&self, instance: &str) -> StageError {
        let pid = self
            .status(instance)
            .map(|s| format!(" (process {})", s.pid))
            .unwrap_or_default();
        StageError::new(
            codes::LOCKED,
            format!("{instance} already runs in {}{pid}", self.0.display()),
        )
    }

    /// The run that holds the lock of an instance; `None` when the lock is free.
    pub fn holder(&self, instance: &str) -> Option<String> {
        let file = files::open_to_read(&self.lock_path(instance)).ok()?;
        match flock(&file, FlockOperation::NonBlockingLockShared) {
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut bytes = Vec::new();
                file.take(MAX_HOLDER).read_to_end(&mut bytes).ok()?;
                // The holder writes its id just after it acquires the lock.
                let holder: Value = serde_json::from_slice(&bytes).unwrap_or_default();
                Some(holder["run"].as_str().unwrap_or_default().to_owned())
            }
            // Also on a file system without locks.
            _ => None,
        }
    }

    /// Moves the outputs of the previous run away, so that no gate accepts them, and returns them.
    pub(crate) fn archive_outputs(
        &self,
        instance: &str,
    ) -> Result<Option<OutputsFile>, StageError> {
        let (now, before) = (self.outputs_path(instance), self.previous_path(instance));
        match std::fs::rename(&now, &before) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(StageError::io(
                    format!("cannot archive {}", now.display()),
                    &e,
                ));
            }
            _ => {}
        }
        drop(files::remove(&now));
        Ok(parse(&before))
    }

    pub(crate) fn write_outputs(&self, outputs: &OutputsFile) -> Result<(), StageError> {
        let path = self.outputs_path(&outputs.reported.stage);
        let bytes = serde_json::to_vec_pretty(outputs)
            .map_err(|e| StageError::internal(format!("outputs are not JSON: {e}")))?;
        files::replace(&path, &bytes, true)
            .map_err(|e| StageError::io(format!("cannot write {}", path.display()), &e))
    }

    /// The outputs file of an instance, of any run. `None` when it does not exist or is not valid.
    pub fn outputs(&self, instance: &str) -> Option<OutputsFile> {
        parse(&self.outputs_path(instance))
    }

    /// The outputs of an instance, if the run that wrote them is alive.
    pub fn live_outputs(&self, instance: &str) -> Option<OutputsFile> {
        let outputs = self.outputs(instance)?;
        (self.holder(instance).as_ref() == Some(&outputs.reported.run)).then_some(outputs)
    }

    /// The names of the instances that have a lock file here.
    pub fn instances(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.0).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries
            .filter_map(|e| {
                e.file_name()
                    .to_str()?
                    .strip_suffix(".lock")
                    .map(str::to_owned)
            })
            .collect();
        names.sort();
        names
    }

    pub(crate) fn write_status(&self, status: &Status) {
        // For people and `wait`; a full disk must not end a stage that works.
        if let Ok(bytes) = serde_json::to_vec(status) {
            drop(files::replace(
                &self.status_path(&status.stage),
                &bytes,
                false,
            ));
        }
    }

    /// The status of an instance, of any run.
    pub fn status(&self, instance: &str) -> Option<Status> {
        parse(&self.status_path(instance))
    }

    /// Removes the files of an instance except its lock file. The caller holds the lock.
    pub(crate) fn forget(&self, instance: &str) -> std::io::Result<()> {
        files::remove(&self.outputs_path(instance))?;
        files::remove(&self.previous_path(instance))?;
        files::remove(&self.status_path(instance))
    }
}

fn parse<T: DeserializeOwned>(path: &Path) -> Option<T> {
    let bytes = files::read_at_most(path, MAX_OUTPUTS).ok()??;
    let commas = bytes.iter().filter(|byte| **byte == b',').count();
    if commas > MAX_COMMAS {
        return None;
    }
    serde_json::from_slice(&bytes).ok()
}

/// Whether a text can be an instance name: it is also a file name and part of the short `ready` line.
pub fn is_instance_name(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphanumeric())
        && chars.all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
        && name.len() <= 63
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_the_directory_are_refused() {
        for bad in ["", ".", "..", "a/b", "-x", "a b", &"x".repeat(64)] {
            assert!(!is_instance_name(bad), "{bad}");
        }
        assert!(is_instance_name("gateway-2.eu_west"));
    }
}
