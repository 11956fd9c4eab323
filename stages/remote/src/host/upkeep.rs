//! `describe` and `cleanup` of a plugin, for what a dead run left.

use std::path::Path;
use std::time::Duration;

use protocol::ledger::Entry;
use protocol::{Context, StageError, Undone, child};
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::plugin::{BRIEF, show};
use super::process::Group;
use super::{Host, directory};

/// How long `describe` and `cleanup` of a plugin may take.
const UPKEEP: Duration = Duration::from_secs(30);

/// What is read of their stdout.
const LIMIT: u64 = 1024 * 1024;

/// What we need of `describe`.
#[derive(Deserialize)]
struct Described {
    verbs: Vec<String>,
}

pub(super) async fn undo(cx: &Context<Host>, entry: &Entry) -> Result<Undone, StageError> {
    let Some(program) = entry.data["uses"].as_str() else {
        return Ok(Undone::Nothing);
    };
    if !Path::new(program).exists() {
        cx.warn(format!(
            "{program} is gone, and what it may have left with it"
        ));
        return Ok(Undone::Nothing);
    }
    let text = call(cx, program, &["describe"]).await?;
    let described: Described = serde_json::from_str(&text)
        .map_err(|e| failed(program, "describe", "its output is not a description").source(&e))?;
    if !described.verbs.iter().any(|v| v == "cleanup") {
        return Ok(Undone::Nothing);
    }
    let dir = directory(cx);
    let dir = dir.to_string_lossy();
    let args = ["cleanup", "--name", &cx.instance, "--run-dir", &dir];
    call(cx, program, &args).await?;
    Ok(Undone::Removed(format!("{program} cleaned up")))
}

fn failed(program: &str, verb: &str, why: &str) -> StageError {
    let message = format!("`{program} {verb}` failed: {why}");
    StageError::new("remote.plugin_upkeep", message).hint("mend the plugin and run cleanup again")
}

/// Runs a short verb of a plugin and returns what it wrote to stdout.
async fn call(cx: &Context<Host>, program: &str, args: &[&str]) -> Result<String, StageError> {
    let verb = args.first().copied().unwrap_or_default();
    let failed = |why: &str| failed(program, verb, why);
    let mut leashed = child::spawn(program, args).map_err(|e| failed(&e.to_string()))?;
    let mut group = Group::led_by(&leashed.child);
    let (Some(stdout), Some(stderr)) = (leashed.child.stdout.take(), leashed.child.stderr.take())
    else {
        return Err(StageError::internal("a plugin without output pipes"));
    };
    let (mut output, mut people) = (JoinSet::new(), JoinSet::new());
    output.spawn(collect(stdout));
    people.spawn(show(cx.clone(), stderr));
    let status = tokio::select! {
        status = timeout(UPKEEP, leashed.child.wait()) => status,
        () = cx.shutdown.cancelled() => return Err(failed("interrupted")),
    };
    let status = status
        .map_err(|_| failed(&format!("no end after {} s", UPKEEP.as_secs())))?
        .map_err(|e| failed(&e.to_string()))?;
    // What it started and left may hold the pipes.
    let rest = async { (output.join_next().await, people.join_next().await) };
    let (rest, ()) = tokio::join!(timeout(BRIEF, rest), group.end(BRIEF));
    let bytes = match rest {
        Ok((Some(Ok(bytes)), _)) => bytes,
        _ => return Err(failed("something that it started holds its stdout")),
    };
    if bytes.len() as u64 > LIMIT {
        return Err(failed("it writes over 1 MiB to stdout"));
    }
    match status.success() {
        true => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        false => Err(failed(&status.to_string())),
    }
}

/// Closes the pipe when there is too much in it: a program that goes on writing ends by that.
async fn collect(stdout: impl AsyncRead + Unpin) -> Vec<u8> {
    let mut bytes = Vec::new();
    drop(stdout.take(LIMIT + 1).read_to_end(&mut bytes).await);
    bytes
}
