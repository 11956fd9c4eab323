//! The run directory: where the stages of one devcluster meet. Who is alive is said by a lock, never by a bare PID.
//!
//! ```text
//! <run-dir>/<instance>.lock            flock held while the instance lives; holds its run id
//! <run-dir>/outputs/<instance>.json    what it found out
//! <run-dir>/outputs/.<instance>.prev   what the run before found out
//! <run-dir>/status/<instance>.json     its phase, step and last error
//! ```

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::codes;
use crate::error::StageError;
use crate::files;
use crate::provides::Provides;

/// How long `run` waits for a predecessor that is just stopping.
pub const LOCK_TIMEOUT: Duration = Duration::from_secs(5);

/// Outputs fit a line of the wire; written to be read by people, twice, they are still smaller than this.
const MAX_OUTPUTS: u64 = 1 << 20;
/// A value takes some seventy bytes of memory, and in a file of nothing but numbers two. What fits two lines has fewer.
const MAX_COMMAS: usize = 1 << 17;

/// What a lock file holds is far shorter.
const MAX_HOLDER: u64 = 4096;

const LOCK_RETRY: Duration = Duration::from_millis(25);

/// A directory that only we can use.
#[derive(Clone, Debug)]
pub struct RunDir(PathBuf);

/// What an instance found out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "<run-dir>/outputs/<instance>.json")]
pub struct OutputsFile {
    /// Protocol version.
    pub dcs: u64,
    /// Instance name.
    pub stage: String,
    /// Kind of stage.
    pub kind: String,
    /// The run that wrote it.
    pub run: String,
    /// Rises by one whenever the outputs change.
    #[serde(rename = "gen")]
    pub generation: u64,
    /// The values.
    pub outputs: Map<String, Value>,
    /// What they mean: JSON pointers into them, by meaning.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub provides: Provides,
    /// Paths of 0600 files that hold secrets, by name.
    #[serde(default)]
    pub secrets: Map<String, Value>,
    /// The outputs of the run before, where there was one.
    #[serde(default)]
    pub prev: Option<Map<String, Value>>,
}

/// Where an instance stands in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Reading its config, taking its lock.
    Starting,
    /// Working towards ready.
    Preparing,
    /// The outputs hold.
    Ready,
    /// The outputs do not hold for the moment.
    Degraded,
    /// Giving back what it holds.
    Stopping,
    /// Ended in good order.
    Stopped,
    /// Ended with an error.
    Failed,
}

impl Phase {
    /// Whether the run has ended.
    pub fn is_final(self) -> bool {
        matches!(self, Phase::Stopped | Phase::Failed)
    }
}

/// Where an instance stands.
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
    /// Where it stands.
    pub phase: Phase,
    /// When it came there, in milliseconds since 1970.
    pub since_ms: u64,
    /// What it is doing, in words.
    #[serde(default)]
    pub message: Option<String>,
    /// The last error.
    #[serde(default)]
    pub error: Option<StageError>,
}

/// The lock of an instance. Released when dropped, also by the kernel when the process dies.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl RunDir {
    /// Makes the directory, or checks that it is ours alone.
    pub fn open(path: &Path) -> Result<RunDir, StageError> {
        files::private_dir(path, "run directory")?;
        for inside in ["outputs", "status"] {
            files::private_dir(&path.join(inside), "run directory")?;
        }
        let absolute = std::path::absolute(path)
            .map_err(|e| StageError::io(format!("cannot resolve {}", path.display()), &e))?;
        Ok(RunDir(absolute))
    }

    /// The absolute path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A file inside it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
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

    /// Takes the lock of an instance, waiting for a predecessor that is just stopping.
    pub async fn lock(&self, instance: &str, run: &str) -> Result<Lock, StageError> {
        let path = self.lock_path(instance);
        let failed =
            |e: std::io::Error| StageError::io(format!("cannot lock {}", path.display()), &e);
        let mut file = files::open(&path).map_err(failed)?;
        let deadline = tokio::time::Instant::now() + LOCK_TIMEOUT;
        while let Err(e) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
            if e != rustix::io::Errno::WOULDBLOCK {
                return Err(failed(e.into()));
            }
            if tokio::time::Instant::now() >= deadline {
                return Err(self.locked(instance));
            }
            tokio::time::sleep(LOCK_RETRY).await;
        }
        let holder = json!({"run": run}).to_string();
        let written = file
            .set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| file.write_all(holder.as_bytes()));
        written.map_err(failed)?;
        Ok(Lock { _file: file })
    }

    fn locked(&self, instance: &str) -> StageError {
        let pid = self
            .status(instance)
            .map(|s| format!(" (process {})", s.pid))
            .unwrap_or_default();
        StageError::new(
            codes::LOCKED,
            format!("{instance} already runs in {}{pid}", self.0.display()),
        )
    }

    /// The run that holds the lock of an instance; `None` when nobody does.
    pub fn holder(&self, instance: &str) -> Option<String> {
        let file = files::open_to_read(&self.lock_path(instance)).ok()?;
        match flock(&file, FlockOperation::NonBlockingLockShared) {
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut bytes = Vec::new();
                file.take(MAX_HOLDER).read_to_end(&mut bytes).ok()?;
                // Between taking the lock and writing the id there is a moment without one.
                let holder: Value = serde_json::from_slice(&bytes).unwrap_or_default();
                Some(holder["run"].as_str().unwrap_or_default().to_owned())
            }
            // A file system without locks holds none.
            _ => None,
        }
    }

    /// Puts the outputs of the run before aside, so that no gate is passed by them, and returns them.
    pub(crate) fn archive_outputs(
        &self,
        instance: &str,
    ) -> Result<Option<OutputsFile>, StageError> {
        let (now, before) = (self.outputs_path(instance), self.previous_path(instance));
        match std::fs::rename(&now, &before) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(StageError::io(
                    format!("cannot put {} aside", now.display()),
                    &e,
                ));
            }
            _ => {}
        }
        drop(files::remove(&now));
        Ok(parse(&before))
    }

    pub(crate) fn write_outputs(&self, outputs: &OutputsFile) -> Result<(), StageError> {
        let path = self.outputs_path(&outputs.stage);
        let bytes = serde_json::to_vec_pretty(outputs)
            .map_err(|e| StageError::internal(format!("outputs are not JSON: {e}")))?;
        files::replace(&path, &bytes, true)
            .map_err(|e| StageError::io(format!("cannot write {}", path.display()), &e))
    }

    /// The outputs file of an instance, whoever wrote it. `None` when there is none, or it is not one.
    pub fn outputs(&self, instance: &str) -> Option<OutputsFile> {
        parse(&self.outputs_path(instance))
    }

    /// The outputs of an instance that is alive and has written them itself.
    pub fn live_outputs(&self, instance: &str) -> Option<OutputsFile> {
        let outputs = self.outputs(instance)?;
        (self.holder(instance).as_ref() == Some(&outputs.run)).then_some(outputs)
    }

    /// Instances that have a lock file here, by name.
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

    /// The status of an instance, whoever wrote it.
    pub fn status(&self, instance: &str) -> Option<Status> {
        parse(&self.status_path(instance))
    }

    /// Removes what an instance left here, but for its lock file. The caller holds the lock.
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

/// An instance name is also a file name and part of the `ready` line, which has to stay short.
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
