//! Calls a program for one answer: starts it, reads up to a limit, and ends it with all processes that it started.

mod process;

use std::path::Path;
use std::pin::pin;
use std::process::Stdio;
use std::time::Duration;

use futures::future::{Either, select};
use protocol::{Env, StageError, child};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;
use tokio::time::timeout;

use crate::lines::Lines;
pub(crate) use process::Group;

/// How long a short verb may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// How long to wait for the processes that a program started.
pub(crate) const EXIT_TIMEOUT: Duration = Duration::from_millis(100);

/// The most bytes read from its stdout.
pub(crate) const MAX_STDOUT: u64 = 1024 * 1024;

/// The environment variables that an offline verb gets: they contain no secret.
const SAFE_VARIABLES: [&str; 4] = ["PATH", "HOME", "LANG", "TMPDIR"];

/// A program, a verb and its arguments.
pub(crate) struct Call<'a> {
    program: &'a Path,
    args: &'a [&'a str],
    plain_env: Option<&'a Env>,
    stdin: Vec<u8>,
    limit: u64,
}

/// The result of a call.
pub(crate) struct CallOutput {
    pub(crate) stdout: Vec<u8>,
    pub(crate) success: bool,
    /// Its exit status, for people.
    pub(crate) how: String,
}

pub(crate) fn failed(program: &Path, verb: &str, why: &str) -> StageError {
    let message = format!("`{} {verb}` failed: {why}", program.display());
    StageError::new(protocol::codes::PROGRAM_FAILED, message)
}

impl<'a> Call<'a> {
    pub(crate) fn new(program: &'a Path, args: &'a [&'a str]) -> Call<'a> {
        Call {
            program,
            args,
            plain_env: None,
            stdin: Vec::new(),
            limit: MAX_STDOUT,
        }
    }

    /// Passes only variables that contain no secret.
    pub(crate) fn with_plain_env(mut self, env: &'a Env) -> Call<'a> {
        self.plain_env = Some(env);
        self
    }

    /// Writes this to its stdin, and sets the most bytes read from its stdout.
    pub(crate) fn with_stdin(mut self, stdin: Vec<u8>, limit: usize) -> Call<'a> {
        self.stdin = stdin;
        self.limit = limit as u64;
        self
    }

    /// Runs it until it ends. `on_line` gets the lines of its stderr. Dropping the future ends all processes that it started.
    pub(crate) async fn run(self, on_line: impl FnMut(String)) -> Result<CallOutput, StageError> {
        let verb = self.args.first().copied().unwrap_or_default();
        let failed = |why: &str| failed(self.program, verb, why);
        let mut command = Command::new(self.program);
        command.args(self.args);
        if let Some(env) = self.plain_env {
            command.env_clear().envs(env.iter().filter(|(name, _)| {
                let name = name.to_string_lossy();
                SAFE_VARIABLES.contains(&&*name) || name.starts_with("XDG_")
            }));
        }
        let mut child = child::spawn_piped(&mut command).map_err(|e| failed(&e.to_string()))?;
        let mut group = Group::led_by(&child);
        let (Some(mut stdin), Some(stdout), Some(stderr)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(StageError::internal("a program without pipes"));
        };
        // A program that does not read its stdin can still answer.
        let write = async move { drop(stdin.write_all(&self.stdin).await) };
        let reading = async {
            let ((), stdout, ()) = tokio::join!(
                write,
                collect(stdout, self.limit),
                forward_lines(stderr, on_line)
            );
            stdout
        };
        let ended = async {
            let status = timeout(CALL_TIMEOUT, child.wait()).await;
            group.end(EXIT_TIMEOUT).await;
            status
        };
        let (status, stdout) = match select(pin!(ended), pin!(reading)).await {
            // Processes that it left may keep the pipes open.
            Either::Left((status, reading)) => (status, timeout(EXIT_TIMEOUT, reading).await.ok()),
            Either::Right((stdout, ended)) => (ended.await, Some(stdout)),
        };
        let status = status
            .map_err(|_| {
                failed(&format!(
                    "it did not finish within {} s",
                    CALL_TIMEOUT.as_secs()
                ))
            })?
            .map_err(|e| failed(&e.to_string()))?;
        let stdout =
            stdout.ok_or_else(|| failed("a process that it started keeps its stdout open"))?;
        if stdout.len() as u64 > self.limit {
            let most = self.limit >> 20;
            return Err(failed(&format!("it wrote more than {most} MiB to stdout")));
        }
        Ok(CallOutput {
            stdout,
            success: status.success(),
            how: status.to_string(),
        })
    }
}

/// The stdout of a system tool, if it succeeds in time.
pub(crate) async fn output(program: &str, args: &[&str], patience: Duration) -> Option<String> {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(patience, command.output()).await;
    let output = output.ok()?.ok().filter(|o| o.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Reads up to the limit, then closes the pipe, which ends a program that keeps writing.
async fn collect(stdout: impl AsyncRead + Unpin, limit: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    drop(stdout.take(limit + 1).read_to_end(&mut bytes).await);
    bytes
}

/// Passes on the lines that a program writes to stderr.
pub(crate) async fn forward_lines(stderr: impl AsyncRead + Unpin, mut on_line: impl FnMut(String)) {
    let mut lines = Lines::new(stderr);
    while let Some(line) = lines.next().await {
        on_line(line);
    }
}
