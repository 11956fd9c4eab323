//! The client of devcluster's control socket. A careless client kills devcluster: a client that does not read blocks it, and
//! one that disconnects early causes a broken pipe that it does not handle. So a separate process uses the socket: it
//! outlives this one, makes one short request, and keeps the connection until devcluster closes it.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::process::Command;

use crate::frame::{self, Frame};

/// How long devcluster may take to answer. After that, no more requests are made.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Time limit for the answer of the process that asks. It is not ended then: it may hold a connection.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(12);

/// The longest line of the state or of a log. The first line, which holds every log so far, is skipped.
const MAX_LINE: usize = 1 << 20;

/// What devcluster writes before the JSON of its state, which it logs line by line.
const STATE: &str = "state_machine: ";

/// The result of a request to restart a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RestartOutcome {
    /// devcluster restarts it.
    Restarted,
    /// The stage does not run. It reads current values when it starts.
    Down,
    /// The stage is starting, and may have read outdated values.
    Starting,
    /// The stage is above devcluster's target stage. A restart would start it nevertheless, so none is requested.
    AboveTarget,
    /// The stage has crashed, and is not one of those to start again.
    Crashed,
    /// devcluster has no stage of that name, or several.
    Unknown,
}

/// The outcome for each stage, by its name.
pub type Outcomes = BTreeMap<String, RestartOutcome>;

/// Why the request failed.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages document the variants")]
pub enum ControlError {
    #[error("devcluster has no control socket at {path} ({source}), as with --oneshot")]
    Absent {
        path: String,
        source: std::io::Error,
    },
    #[error("devcluster does not answer on its control socket")]
    Silent,
    #[error("devcluster closed its control socket: {0}")]
    Closed(std::io::Error),
    #[error("devcluster reports its state in an unknown format: {0}")]
    UnknownState(String),
}

/// devcluster's state, as its command `dump_state` reports it.
#[derive(Debug, Deserialize)]
struct State {
    target: usize,
    standing_up: Option<usize>,
    stages: Vec<StageState>,
}

#[derive(Debug, Deserialize)]
struct StageState {
    name: String,
    running: bool,
    stage_up: bool,
    status: String,
}

impl State {
    fn decide(&self, name: &str) -> (RestartOutcome, usize) {
        let named = self
            .stages
            .iter()
            .enumerate()
            .skip(1)
            .filter(|(_, s)| s.name == name);
        let mut named = named.collect::<Vec<_>>().into_iter();
        let (Some((index, stage)), None) = (named.next(), named.next()) else {
            return (RestartOutcome::Unknown, 0);
        };
        let outcome = if self.standing_up == Some(index) {
            RestartOutcome::Starting
        } else if stage.status == "CRASHED" || !stage.running || !stage.stage_up {
            RestartOutcome::Down
        } else if index > self.target {
            RestartOutcome::AboveTarget
        } else {
            RestartOutcome::Restarted
        };
        (outcome, index)
    }

    /// Every crashed stage, and whether it is started again: one of `names` is, unless devcluster starts another one.
    fn crashed(&self, names: &[String]) -> Decided {
        let stages = self.stages.iter().enumerate().skip(1);
        let crashed = stages.filter(|(_, stage)| stage.status == "CRASHED");
        let decided = crashed.map(|(index, stage)| {
            let outcome = if !names.contains(&stage.name) {
                RestartOutcome::Crashed
            } else if index > self.target {
                RestartOutcome::AboveTarget
            } else if self.standing_up.is_some() {
                RestartOutcome::Starting
            } else {
                RestartOutcome::Restarted
            };
            (stage.name.clone(), (outcome, index))
        });
        decided.collect()
    }
}

/// The outcome for each stage, and its number.
type Decided = BTreeMap<String, (RestartOutcome, usize)>;

/// Asks devcluster to restart those of these stages that are up and not above its target. `tell` gets the result of each as
/// soon as it is known; this function returns when devcluster has closed the connection.
///
/// # Errors
/// No restart was requested.
pub async fn restart(
    socket: &Path,
    stages: &[String],
    tell: impl FnOnce(&Outcomes),
) -> Result<(), ControlError> {
    let decide = |state: &State| {
        let decided = stages.iter().map(|name| (name.clone(), state.decide(name)));
        decided.collect()
    };
    ask(socket, decide, tell).await
}

/// Asks devcluster to start those of these stages again that have crashed and are not above its target. `tell` gets the
/// outcome for every crashed stage.
///
/// # Errors
/// No restart was requested.
pub async fn restart_crashed(
    socket: &Path,
    stages: &[String],
    tell: impl FnOnce(&Outcomes),
) -> Result<(), ControlError> {
    ask(socket, |state| state.crashed(stages), tell).await
}

async fn ask(
    socket: &Path,
    decide: impl FnOnce(&State) -> Decided,
    tell: impl FnOnce(&Outcomes),
) -> Result<(), ControlError> {
    let (mut read, mut write) = connect(socket).await?;
    let asked = async {
        let state = state(&mut read, &mut write).await?;
        let decided = decide(&state);
        let restarts = decided
            .values()
            .filter(|(o, _)| *o == RestartOutcome::Restarted);
        let mut indices: Vec<usize> = restarts.map(|(_, index)| *index).collect();
        // In the order of their start: a later one may need an earlier one.
        indices.sort_unstable();
        let mut lines = String::new();
        for index in indices {
            lines.push_str(&format!("{}\n", json!({"restart_stage": index})));
        }
        write
            .write_all(lines.as_bytes())
            .await
            .map_err(ControlError::Closed)?;
        tell(
            &decided
                .into_iter()
                .map(|(name, (outcome, _))| (name, outcome))
                .collect(),
        );
        Ok(())
    };
    let asked = tokio::time::timeout(ANSWER_TIMEOUT, asked).await;
    close(read, write).await;
    asked.unwrap_or(Err(ControlError::Silent))
}

/// Asks in a separate process, and returns the outcomes, or why there are none. `program` is `devcluster-config-emit`, which
/// calls [`restart`] or, with `--crashed`, [`restart_crashed`]. It has its own process group and no parent-death signal, so
/// that it completes the conversation even if this process dies.
pub async fn request(
    program: &Path,
    socket: &Path,
    arguments: &[String],
) -> Result<Outcomes, String> {
    let mut command = Command::new(program);
    command.arg("restart").arg("--control-socket").arg(socket);
    command.args(arguments).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command
        .process_group(0)
        .spawn()
        .map_err(|e| format!("cannot start {}: {e}", program.display()))?;
    let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return Err("the process that talks to devcluster has no output".into());
    };
    let mut line = String::new();
    let mut lines = BufReader::new(stdout);
    let read = tokio::time::timeout(REQUEST_TIMEOUT, lines.read_line(&mut line)).await;
    if read.is_err() {
        return Err("devcluster does not answer on its control socket".into());
    }
    if let Ok(outcomes) = serde_json::from_str(&line) {
        return Ok(outcomes);
    }
    let mut why = String::new();
    let mut lines = BufReader::new(stderr);
    drop(tokio::time::timeout(REQUEST_TIMEOUT, lines.read_line(&mut why)).await);
    let why = why.trim();
    Err(why
        .split_once(": error: ")
        .map_or(why, |(_, why)| why)
        .to_owned())
}

/// Whether the stage is up, with all of its `post` steps.
///
/// # Errors
/// The request failed.
pub async fn is_up(socket: &Path, stage: &str) -> Result<bool, ControlError> {
    let (mut read, mut write) = connect(socket).await?;
    let state = tokio::time::timeout(ANSWER_TIMEOUT, state(&mut read, &mut write)).await;
    close(read, write).await;
    let (outcome, _) = state.unwrap_or(Err(ControlError::Silent))?.decide(stage);
    Ok(outcome == RestartOutcome::Restarted)
}

async fn connect(
    socket: &Path,
) -> Result<(BufReader<OwnedReadHalf>, OwnedWriteHalf), ControlError> {
    let connected = UnixStream::connect(socket).await;
    let stream = connected.map_err(|source| ControlError::Absent {
        path: socket.display().to_string(),
        source,
    })?;
    let (read, write) = stream.into_split();
    Ok((BufReader::with_capacity(64 << 10, read), write))
}

/// Closes the sending side, then reads until devcluster closes the connection: it crashes when it writes to a closed one.
async fn close(mut read: BufReader<OwnedReadHalf>, mut write: OwnedWriteHalf) {
    drop(write.shutdown().await);
    let mut rest = [0; 64 << 10];
    while read.read(&mut rest).await.is_ok_and(|n| n > 0) {}
}

async fn state(
    read: &mut (impl AsyncBufRead + Unpin),
    write: &mut (impl AsyncWriteExt + Unpin),
) -> Result<State, ControlError> {
    // The first line is a pickle of every log so far, perhaps many megabytes: skip it.
    line(read, 0).await?;
    let dump = format!("{}\n", json!({"dump_state": null}));
    write
        .write_all(dump.as_bytes())
        .await
        .map_err(ControlError::Closed)?;
    let mut dumped: Option<String> = None;
    loop {
        let line = line(read, MAX_LINE).await?;
        let Ok(message) = serde_json::from_slice::<Value>(&line) else {
            continue;
        };
        let log = &message["log_cb"];
        let text = log["msg"].as_str().and_then(|m| STANDARD.decode(m).ok());
        let (Some(text), true) = (text, log["stream"] == "console") else {
            continue;
        };
        let text = String::from_utf8_lossy(&text).into_owned();
        match &mut dumped {
            None => dumped = text.strip_prefix(STATE).map(str::to_owned),
            Some(so_far) => so_far.push_str(&text),
        }
        if let (Some(dumped), "}") = (&dumped, text.trim_end()) {
            return serde_json::from_str(dumped)
                .map_err(|e| ControlError::UnknownState(e.to_string()));
        }
    }
}

/// The next line, or an empty one in place of a line with more bytes than this.
async fn line(
    read: &mut (impl AsyncBufRead + Unpin),
    longest: usize,
) -> Result<Vec<u8>, ControlError> {
    let frame = frame::read_at_most(read, longest).await;
    match frame.map_err(ControlError::Closed)? {
        Frame::Line(line) => Ok(line),
        Frame::TooLong(_) => Ok(Vec::new()),
        Frame::End(_) => Err(ControlError::Closed(ErrorKind::UnexpectedEof.into())),
    }
}

#[cfg(test)]
mod tests;
