//! The short verbs of a plugin: started, read, and ended with all that they started.

use std::path::Path;
use std::time::Duration;

use protocol::{StageError, child};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::plugin::BRIEF;
use super::process::Group;
use crate::devcluster::text::Lines;

/// How long a short verb may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is read of its stdout.
const LIMIT: u64 = 1024 * 1024;

/// What a short verb came to.
pub(crate) struct Called {
    pub(crate) stdout: Vec<u8>,
    pub(crate) success: bool,
    /// How it ended, for people.
    pub(crate) how: String,
}

pub(crate) fn failed(program: &Path, verb: &str, why: &str) -> StageError {
    let message = format!("`{} {verb}` failed: {why}", program.display());
    StageError::new("remote.plugin_upkeep", message).hint("mend the plugin and try again")
}

/// Runs a short verb to its end. `people` gets the lines of its stderr. Dropped, it ends what it started.
pub(crate) async fn call(
    program: &Path,
    args: &[&str],
    people: impl FnMut(String) + Send + 'static,
) -> Result<Called, StageError> {
    let verb = args.first().copied().unwrap_or_default();
    let failed = |why: &str| failed(program, verb, why);
    let mut leashed = child::spawn(program, args).map_err(|e| failed(&e.to_string()))?;
    let mut group = Group::led_by(&leashed.child);
    let (Some(stdout), Some(stderr)) = (leashed.child.stdout.take(), leashed.child.stderr.take())
    else {
        return Err(StageError::internal("a plugin without output pipes"));
    };
    let (mut output, mut words) = (JoinSet::new(), JoinSet::new());
    output.spawn(collect(stdout));
    words.spawn(each_line(stderr, people));
    let status = timeout(PATIENCE, leashed.child.wait())
        .await
        .map_err(|_| failed(&format!("no end after {} s", PATIENCE.as_secs())))?
        .map_err(|e| failed(&e.to_string()))?;
    // What it started and left may hold the pipes.
    let rest = async { (output.join_next().await, words.join_next().await) };
    let (rest, ()) = tokio::join!(timeout(BRIEF, rest), group.end(BRIEF));
    let stdout = match rest {
        Ok((Some(Ok(bytes)), _)) => bytes,
        _ => return Err(failed("something that it started holds its stdout")),
    };
    if stdout.len() as u64 > LIMIT {
        return Err(failed("it writes over 1 MiB to stdout"));
    }
    Ok(Called {
        stdout,
        success: status.success(),
        how: status.to_string(),
    })
}

/// Closes the pipe when there is too much in it: a program that goes on writing ends by that.
async fn collect(stdout: impl AsyncRead + Unpin) -> Vec<u8> {
    let mut bytes = Vec::new();
    drop(stdout.take(LIMIT + 1).read_to_end(&mut bytes).await);
    bytes
}

/// What a plugin writes to stderr is for people.
pub(super) async fn each_line(stderr: impl AsyncRead + Unpin, mut people: impl FnMut(String)) {
    let mut lines = Lines::new(stderr);
    while let Some(line) = lines.next().await {
        people(line);
    }
}
