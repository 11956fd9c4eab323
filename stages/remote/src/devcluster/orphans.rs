//! Stages that outlive a dead devcluster. Its next start would end them, by the list in `running.json`; this module does the
//! same at once.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, SystemTime};

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
    let Some(mut list) = List::read(temp_dir) else {
        return Vec::new();
    };
    list.orphans.reverse();
    list.keep_alive(SELF_EXIT_TIMEOUT).await;
    let mut ended = Vec::new();
    for orphan in &list.orphans {
        orphan.send(orphan.signal()).await;
        ended.push(orphan.to_string());
    }
    list.keep_alive(SIGNAL_TIMEOUT).await;
    for survivor in list.orphans {
        survivor.send("SIGKILL").await;
    }
    ended
}

/// The orphans that [`end`] would end.
pub(crate) async fn list_alive(temp_dir: &Path) -> Vec<String> {
    let Some(mut list) = List::read(temp_dir) else {
        return Vec::new();
    };
    list.keep_alive(Duration::ZERO).await;
    list.orphans.iter().rev().map(Orphan::to_string).collect()
}

/// What a dead devcluster left running.
struct List {
    orphans: Vec<Orphan>,
    /// When devcluster wrote the list.
    written: SystemTime,
    /// devcluster's lock.
    _lock: File,
}

impl List {
    /// `None` while a devcluster runs there: then its stages are not orphans.
    fn read(temp_dir: &Path) -> Option<List> {
        // `temp_dir` may be below /tmp: ignore the list of another user.
        let temp_dir = trusted(temp_dir).ok()?;
        let lock = files::open_to_read(&temp_dir.join("lock")).ok()?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).ok()?;
        let path = temp_dir.join("running.json");
        let orphans = files::read(&path).ok()??;
        Some(List {
            orphans: serde_json::from_slice(&orphans).ok()?,
            written: path.metadata().and_then(|it| it.modified()).ok()?,
            _lock: lock,
        })
    }

    /// Waits until all have ended, at most so long, and keeps those that are alive.
    async fn keep_alive(&mut self, patience: Duration) {
        let deadline = Instant::now() + patience;
        loop {
            let mut alive = Vec::new();
            for mut orphan in std::mem::take(&mut self.orphans) {
                if orphan.is_alive(self.written).await {
                    alive.push(orphan);
                }
            }
            self.orphans = alive;
            if self.orphans.is_empty() || Instant::now() >= deadline {
                return;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// The arguments of `ps` for a process: its group, the time since its start, and its command line.
const PS: [&str; 7] = ["-ww", "-o", "pgid=", "-o", "etime=", "-o", "command="];

/// Whether a line of `ps` is of the process that was in a list written at that time. A script may have replaced itself by
/// another program with `exec`. It still leads the process group that devcluster made for it, and is older than the list;
/// another process with its id is younger.
fn is_same(line: &str, pid: u32, match_args: &str, written: SystemTime) -> Option<String> {
    let (group, rest) = line.trim_start().split_once(' ')?;
    let (elapsed, command) = rest.trim_start().split_once(' ')?;
    let command = command.trim();
    if !match_args.is_empty() && command.starts_with(match_args) {
        return Some(match_args.to_owned());
    }
    let age = SystemTime::now().duration_since(written).ok()?;
    // `ps` drops the fraction of a second.
    let older = elapsed_time(elapsed)? + Duration::from_secs(1) >= age;
    let leads = group.parse() == Ok(pid);
    (older && leads).then(|| command.to_owned())
}

/// `[[days-]hours:]minutes:seconds`
fn elapsed_time(text: &str) -> Option<Duration> {
    let (days, rest) = text.split_once('-').unwrap_or(("0", text));
    let parts = rest.split(':').map(|part| part.parse::<u64>().ok());
    let seconds = parts.reduce(|sum, part| Some(sum? * 60 + part?))??;
    Some(Duration::from_secs(
        days.parse::<u64>().ok()? * 86_400 + seconds,
    ))
}

impl Orphan {
    /// Also notes the command line that the process has now.
    async fn is_alive(&mut self, written: SystemTime) -> bool {
        match self {
            Orphan::Process {
                pid, match_args, ..
            } => {
                let id = pid.to_string();
                let args = [&PS[..], &["-p", &id]].concat();
                let line = output("ps", &args, TOOL_TIMEOUT).await;
                let now = line.and_then(|line| is_same(&line, *pid, match_args, written));
                now.map(|command| *match_args = command).is_some()
            }
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
