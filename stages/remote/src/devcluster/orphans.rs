//! Stages that outlive a dead devcluster. Its next start would end them, by the list in `running.json`; this module does the
//! same at once.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use protocol::files::{self, trust::trusted};
use rustix::fs::{FlockOperation, flock};
use serde::Deserialize;
use tokio::time::Instant;

use crate::call::output;

/// The time in which a stage of this project ends after devcluster is gone. A signal would end its grace period.
const SELF_EXIT_TIMEOUT: Duration = Duration::from_millis(600);

/// The time to end after the signal. After that the process is killed.
const SIGNAL_TIMEOUT: Duration = Duration::from_secs(5);

/// How long `ps` or `docker` may take.
const TOOL_TIMEOUT: Duration = Duration::from_secs(10);

/// The kernel does not report when the child of another process ends.
const PAUSE: Duration = Duration::from_millis(50);

/// A process or container that devcluster started and did not see end.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Orphan {
    Process {
        pid: u32,
        /// The beginning of its command line: the id may belong to another process now.
        match_args: String,
        #[serde(default = "sigkill")]
        kill_signal: String,
    },
    Container {
        container_id: String,
        #[serde(default = "sigkill")]
        kill_signal: String,
    },
}

fn sigkill() -> String {
    "SIGKILL".to_owned()
}

/// Ends the orphans of a dead devcluster, the latest first. Returns what it ended.
pub(crate) async fn end(temp_dir: &Path) -> Vec<String> {
    let Some((mut orphans, _lock)) = list(temp_dir) else {
        return Vec::new();
    };
    orphans.reverse();
    let orphans = alive_after(orphans, SELF_EXIT_TIMEOUT).await;
    let mut ended = Vec::new();
    for orphan in &orphans {
        orphan.send(orphan.signal()).await;
        ended.push(orphan.to_string());
    }
    for survivor in alive_after(orphans, SIGNAL_TIMEOUT).await {
        survivor.send("SIGKILL").await;
    }
    ended
}

/// The orphans that [`end`] would end.
pub(crate) async fn list_alive(temp_dir: &Path) -> Vec<String> {
    let Some((orphans, _lock)) = list(temp_dir) else {
        return Vec::new();
    };
    let alive = alive_after(orphans, Duration::ZERO).await;
    alive.iter().rev().map(Orphan::to_string).collect()
}

/// The list, and devcluster's lock. `None` while a devcluster runs there: then its stages are not orphans.
fn list(temp_dir: &Path) -> Option<(Vec<Orphan>, File)> {
    // `temp_dir` may be below /tmp: ignore the list of another user.
    let temp_dir = trusted(temp_dir).ok()?;
    let lock = files::open_to_read(&temp_dir.join("lock")).ok()?;
    flock(&lock, FlockOperation::NonBlockingLockExclusive).ok()?;
    let orphans = files::read(&temp_dir.join("running.json")).ok()??;
    Some((serde_json::from_slice(&orphans).ok()?, lock))
}

/// The orphans that are still alive after `patience`.
async fn alive_after(mut orphans: Vec<Orphan>, patience: Duration) -> Vec<Orphan> {
    let deadline = Instant::now() + patience;
    loop {
        let mut alive = Vec::new();
        for orphan in orphans {
            if orphan.is_alive().await {
                alive.push(orphan);
            }
        }
        if alive.is_empty() || Instant::now() >= deadline {
            return alive;
        }
        orphans = alive;
        tokio::time::sleep(PAUSE).await;
    }
}

impl Orphan {
    async fn is_alive(&self) -> bool {
        match self {
            // An empty text would match any process.
            Orphan::Process { match_args, .. } if match_args.is_empty() => false,
            Orphan::Process {
                pid, match_args, ..
            } => output(
                "ps",
                &["-ww", "-p", &pid.to_string(), "-o", "command="],
                TOOL_TIMEOUT,
            )
            .await
            .is_some_and(|command| command.trim().starts_with(match_args)),
            Orphan::Container { container_id, .. } => {
                let filter = format!("id={container_id}");
                let found =
                    output("docker", &["ps", "-q", "--filter", &filter], TOOL_TIMEOUT).await;
                found.is_some_and(|id| !id.trim().is_empty())
            }
        }
    }

    fn signal(&self) -> &str {
        match self {
            Orphan::Process { kill_signal, .. } | Orphan::Container { kill_signal, .. } => {
                kill_signal
            }
        }
    }

    async fn send(&self, signal: &str) {
        match self {
            Orphan::Process { pid, .. } => {
                let name = signal.trim_start_matches("SIG");
                let kill = "kill -s \"$1\" \"$2\"";
                output(
                    "sh",
                    &["-c", kill, "kill", name, &pid.to_string()],
                    TOOL_TIMEOUT,
                )
                .await;
            }
            Orphan::Container { container_id, .. } => {
                output(
                    "docker",
                    &["kill", "--signal", signal, container_id],
                    TOOL_TIMEOUT,
                )
                .await;
            }
        }
    }
}

impl std::fmt::Display for Orphan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Orphan::Process {
                pid, match_args, ..
            } => write!(f, "process {pid} (`{match_args}`)"),
            Orphan::Container { container_id, .. } => write!(f, "container {container_id}"),
        }
    }
}

#[cfg(test)]
mod tests;
