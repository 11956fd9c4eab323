//! Runs the preflights of a file's stages concurrently, each with the flags that devcluster passes.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesOrdered;
use protocol::frame::{self, Frame};
use protocol::kinds::RENDERER;
use protocol::message::{Message, decode_message};
use protocol::{Check, Env, StageError, child};
use serde_json::Value;
use tokio::io::{AsyncReadExt, BufReader};
use tokio::process::{ChildStderr, ChildStdout, Command};
use tokio::time::timeout;

use crate::input::CompiledInput;
use crate::plan::NewStage;

/// How long a preflight may take. Checks until then are kept.
const PREFLIGHT_TIMEOUT: Duration = Duration::from_secs(30);

/// The most bytes read from its stderr, which is shown when it writes nothing to stdout.
const MAX_STDERR: u64 = 64 * 1024;

/// The checks of one stage.
#[derive(Debug)]
pub(crate) struct StageChecks {
    /// Instance name.
    pub(crate) stage: String,
    /// Its kind.
    pub(crate) kind: String,
    /// In the order of completion.
    pub(crate) checks: Vec<Check>,
}

/// Runs the preflights of all stages concurrently, and passes on the checks of each in the order of the file.
pub(crate) async fn run_all(input: &CompiledInput, env: &Env, mut found: impl FnMut(StageChecks)) {
    let cwd = input.cwd(env);
    let stages = input.compiled.plan.stages.iter();
    let mut running: FuturesOrdered<_> = stages
        .map(|stage| {
            let arguments = arguments(stage, input, env);
            let cwd = cwd.clone();
            async move {
                StageChecks {
                    stage: stage.name.clone(),
                    kind: stage.kind.clone(),
                    checks: run_preflight(&arguments, cwd).await,
                }
            }
        })
        .collect();
    while let Some(checks) = running.next().await {
        found(checks);
    }
}

/// The preflight command of a stage, expanded as devcluster expands it.
fn arguments(stage: &NewStage, input: &CompiledInput, env: &Env) -> Vec<String> {
    let words = input.compiled.plan.command(stage).into_iter();
    let mut words: Vec<String> = words
        .map(|word| env.expand(&word))
        .filter(|word| word != "run" && word != "--events=none")
        .collect();
    let verb = ["check", "--preflight", "--events=all"].map(str::to_owned);
    let at = stage.program.len();
    words.splice(at..at, verb);
    if stage.kind == RENDERER {
        // devcluster writes the base when it starts; before that, it is in the user's file.
        let file = std::path::absolute(&input.file).unwrap_or_else(|_| input.file.clone());
        words.retain(|word| !word.starts_with("--base="));
        words.push(format!("--base={}", file.display()));
    }
    words
}

async fn run_preflight(arguments: &[String], cwd: Option<PathBuf>) -> Vec<Check> {
    let failed = |e: &StageError| Check::failed("preflight", "the preflight of the stage runs", e);
    let mut checks = Vec::new();
    match timeout(PREFLIGHT_TIMEOUT, run(arguments, cwd, &mut checks)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => checks.push(failed(&error)),
        Err(_) => {
            let message = format!(
                "the preflight did not finish within {} s",
                PREFLIGHT_TIMEOUT.as_secs()
            );
            let error = StageError::new(protocol::codes::PROGRAM_FAILED, message).hint(
                "it probably hangs in the check after the last one shown; run the preflight of the stage alone",
            );
            checks.push(failed(&error));
        }
    }
    checks
}

async fn run(
    arguments: &[String],
    cwd: Option<PathBuf>,
    checks: &mut Vec<Check>,
) -> Result<(), StageError> {
    let (program, rest) = arguments
        .split_first()
        .ok_or_else(|| StageError::internal("a stage without a command"))?;
    let failed = |e: &std::io::Error| StageError::io(format!("cannot run {program}"), e);
    let mut command = Command::new(program);
    command
        .args(rest)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    if let Some(cwd) = cwd.filter(|d| d.is_dir()) {
        command.current_dir(cwd);
    }
    let mut child = child::spawn_inheriting(&mut command).map_err(|e| failed(&e))?;
    let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(StageError::internal("a child without pipes"));
    };
    let (said, words) = tokio::join!(read(stdout, checks), read_stderr(stderr));
    let status = child.wait().await.map_err(|e| failed(&e))?;
    match said {
        Some(error) => Err(error),
        None if status.success() || !checks.is_empty() => Ok(()),
        None => {
            let message = format!("{program} ended with {status} and wrote no message to stdout");
            Err(StageError::new(protocol::codes::PROGRAM_FAILED, message)
                .hint("install the stages of this version beside devcluster-remote: make install")
                .cause(words))
        }
    }
}

/// Collects the checks, and returns the error that stopped the preflight.
async fn read(stdout: ChildStdout, checks: &mut Vec<Check>) -> Option<StageError> {
    let mut reader = BufReader::new(stdout);
    let mut failure = None;
    loop {
        let line = match frame::read(&mut reader).await {
            Ok(Frame::Line(line)) => line,
            Ok(Frame::TooLong(_)) => continue,
            Ok(Frame::End(_)) | Err(_) => return failure,
        };
        match decode_message(&line) {
            Ok(Some(Message::Check(check))) => checks.push(check),
            Ok(Some(Message::Error(error))) => failure = Some(error.error),
            _ => {}
        }
    }
}

async fn read_stderr(stderr: ChildStderr) -> String {
    let mut bytes = Vec::new();
    drop(stderr.take(MAX_STDERR).read_to_end(&mut bytes).await);
    String::from_utf8_lossy(&bytes).trim_end().to_owned()
}

/// The stages of devcluster in the compiled file: kind and body.
pub(crate) fn stock<'a>(compiled: &'a Value, input: &CompiledInput) -> Vec<(&'a str, &'a Value)> {
    let ours = |name: &Value| {
        let stages = input.compiled.plan.stages.iter();
        stages.into_iter().any(|s| *name == *s.name)
    };
    let items = compiled["stages"].as_array().into_iter().flatten();
    items
        .filter_map(|item| item.as_object()?.iter().next())
        .filter(|(kind, body)| *kind != "custom" || !ours(&body["name"]))
        .map(|(kind, body)| (kind.as_str(), body))
        .collect()
}
