//! A running program and its messages.

use std::os::fd::AsFd;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use protocol::frame::MAX_LINE;
use protocol::message::{self, DecodeError};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::unix::pipe::Sender;
use tokio::process::{Child, Command};
use tokio::time::sleep;

use super::clock::within;
use super::machine;
use super::stream::{Stream, pipe, shown};

/// The own time for something that must happen at once.
pub const SOON: Duration = Duration::from_secs(5);

/// The default time to wait for a message.
const PATIENCE: Duration = Duration::from_secs(60);

/// The polling interval: the kernel does not report when a byte in a pipe is read, or when a process that is not a child ends.
const PAUSE: Duration = Duration::from_millis(5);

/// Lines of stderr that an error shows.
const TAIL: usize = 8;

/// The error for a message that did not arrive because the program ended or its time was over.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct MissingMessage(String);

/// A running program. It is killed when this is dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    pid: Pid,
    stdin: Option<Sender>,
    pub stdout: Stream,
    pub stderr: Stream,
    /// The own time that a message may take.
    pub patience: Duration,
    /// The last line that was read.
    last_line: Vec<u8>,
    /// Its stdout and stderr as /proc names them.
    pub pipes: [String; 2],
}

/// The exit status and all output of a program.
#[derive(Debug)]
pub struct Output {
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    pub stderr: String,
    /// Its own time.
    pub took: Duration,
}

impl Output {
    /// The exit status and output for people.
    pub fn shown(&self) -> String {
        format!("it ended with {}{}", self.status, tail(&self.stderr))
    }

    /// Checks the exit code.
    pub fn exits(&self, code: i32, case: &str) -> Result<()> {
        let right = self.status.code() == Some(code);
        ensure!(
            right,
            "{case}: the exit code must be {code}; {}",
            self.shown()
        );
        Ok(())
    }

    /// Checks that it did not crash.
    pub fn exits_somehow(&self, case: &str) -> Result<()> {
        let exits = self.status.code().is_some();
        ensure!(exits, "{case}: it crashed: {}", self.shown());
        Ok(())
    }
}

fn tail(stderr: &str) -> String {
    let lines: Vec<&str> = stderr.trim_end().lines().collect();
    if lines.is_empty() {
        return "; stderr is empty".to_owned();
    }
    let from = lines.len().saturating_sub(TAIL);
    format!("; stderr:\n{}", lines[from..].join("\n"))
}

impl Running {
    /// Starts a program with the stdin of the command; stdout and stderr are read.
    pub fn spawn(mut command: Command) -> Result<Running> {
        let (out, stdout) = pipe()?;
        let (err, stderr) = std::io::pipe()?;
        command
            .stdout(Stdio::from(stdout))
            .stderr(Stdio::from(stderr))
            .kill_on_drop(true);
        let pipes = [named(&out)?, named(&err)?];
        let child = command.spawn();
        // The command holds copies of the writing ends.
        drop(command);
        let child = child.map_err(|e| anyhow!("cannot start it: {e}"))?;
        let pid = child.id().and_then(|id| Pid::from_raw(id as i32));
        Ok(Running {
            pid: pid.context("it has no process id")?,
            child,
            stdin: None,
            stdout: Stream::read(out)?,
            stderr: Stream::read(err.into())?,
            patience: PATIENCE,
            last_line: Vec::new(),
            pipes,
        })
    }

    /// Starts a program with a piped stdin.
    pub fn spawn_hosted(mut command: Command) -> Result<Running> {
        let (theirs, ours) = std::io::pipe()?;
        command.stdin(Stdio::from(theirs));
        let mut running = Running::spawn(command)?;
        running.stdin = Some(Sender::from_owned_fd(ours.into())?);
        Ok(running)
    }

    pub fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Sends a signal, unless it has ended.
    pub fn signal(&self, signal: Signal) {
        if self.child.id().is_some() {
            // It may have ended meanwhile.
            let _ = kill_process(self.pid, signal);
        }
    }

    /// Kills it with its group, as the death of a host ends a plugin.
    pub fn kill_group(&self) {
        let _ = kill_process_group(self.pid, Signal::KILL);
    }

    /// Writes a message to its stdin.
    pub async fn send(&mut self, command: &Value) -> Result<()> {
        self.write(format!("{command}\n").as_bytes()).await
    }

    /// Writes bytes to its stdin. The end of the program is detected elsewhere.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let pid = self.pid();
        let stdin = self.stdin.as_mut().context("its stdin is closed")?;
        let written = within(SOON, || machine::tree(pid), stdin.write_all(bytes)).await;
        match written {
            (_, Some(_)) => Ok(()),
            (_, None) => bail!("it does not read its stdin{}", self.state()),
        }
    }

    /// Waits until it has read all input.
    pub async fn has_read(&mut self) -> Result<()> {
        let pid = self.pid();
        let stdin = self.stdin.as_ref().context("its stdin is closed")?;
        let is_read = || {
            let left = rustix::io::ioctl_fionread(stdin).unwrap_or_default();
            (left == 0).then_some(())
        };
        match within(SOON, || machine::tree(pid), until_some(is_read)).await {
            (_, Some(())) => Ok(()),
            (_, None) => bail!("it does not read its stdin{}", self.state()),
        }
    }

    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// Its state, for errors.
    pub fn state(&self) -> String {
        tail(&self.stderr.text())
    }

    /// The next message that matches. `ready` is written twice and counts once.
    pub async fn until(&mut self, what: &str, fits: impl Fn(&Value) -> bool) -> Result<Value> {
        let (patience, pid) = (self.patience, self.pid());
        let (stdout, last_line) = (&mut self.stdout, &mut self.last_line);
        let fitting = async {
            while let Some(line) = stdout.next_line().await {
                if !line.ends_with(b"\n") {
                    break;
                }
                let message = parse(&line)?;
                let is_repeated = message["type"] == "ready" && line == *last_line;
                *last_line = line;
                if !is_repeated && fits(&message) {
                    return anyhow::Ok(Some(message));
                }
            }
            Ok(None)
        };
        let (after, came) = within(patience, || machine::tree(pid), fitting).await;
        let why = match came.transpose()? {
            Some(Some(message)) => return Ok(message),
            Some(None) => format!("it closed its stdout without {what}"),
            None => format!("no {what} after {:.1} s", after.as_secs_f32()),
        };
        bail!(MissingMessage(why + &self.state()))
    }

    pub async fn next(&mut self, kind: &str) -> Result<Value> {
        let what = format!("`{kind}`");
        self.until(&what, |m| m["type"] == kind).await
    }

    pub async fn ready(&mut self) -> Result<Value> {
        self.next("ready").await
    }

    /// The next `ready` or `result`.
    pub async fn decided(&mut self) -> Result<Value> {
        let decides = |m: &Value| m["type"] == "ready" || m["type"] == "result";
        self.until("`ready` or `result`", decides).await
    }

    /// The next line of stderr with this text.
    pub async fn line(&mut self, text: &str) -> Result<String> {
        let (patience, pid) = (self.patience, self.pid());
        let line = self.stderr.wait_for(text);
        match within(patience, || machine::tree(pid), line).await {
            (_, Some(line)) => line,
            (after, None) => bail!("no `{text}` on stderr after {:.1} s", after.as_secs_f32()),
        }
    }

    /// Polls for something that it does. `None` after a timeout.
    pub async fn eventually<T>(&self, limit: Duration, look: impl Fn() -> Option<T>) -> Option<T> {
        let pid = self.pid();
        let (_, found) = within(limit, || machine::tree(pid), until_some(look)).await;
        found
    }

    /// Every message so far, without invalid lines.
    pub fn messages(&self) -> Vec<Value> {
        let lines = self.stdout.lines();
        lines.iter().filter_map(|l| parse(l).ok()).collect()
    }

    /// The last message of a type, or null.
    pub fn last(&self, kind: &str) -> Value {
        let last = self.messages().into_iter().rfind(|m| m["type"] == kind);
        last.unwrap_or_default()
    }

    /// Waits for its end, and returns the own time that it took.
    pub async fn ended(&mut self, limit: Duration) -> Result<(ExitStatus, Duration)> {
        let pid = self.pid();
        match within(limit, || machine::tree(pid), self.child.wait()).await {
            (took, Some(status)) => Ok((status?, took)),
            (took, None) => {
                let took = took.as_secs_f32();
                bail!("it did not end within {took:.1} s{}", self.state())
            }
        }
    }

    /// Ends it with a signal and waits for its end.
    pub async fn end_by(&mut self, signal: Signal) -> Result<()> {
        self.signal(signal);
        self.ended(SOON).await.map(drop)
    }

    /// Waits for its end, and until all of its output is read.
    pub async fn end(&mut self) -> Result<Output> {
        self.end_within(SOON).await
    }

    pub async fn end_within(&mut self, limit: Duration) -> Result<Output> {
        let (status, took) = self.ended(limit).await?;
        self.drain().await?;
        Ok(Output {
            status,
            stdout: self.stdout.bytes(),
            stderr: self.stderr.text(),
            took,
        })
    }

    /// Checks that it still runs after this much of its own time.
    pub async fn stays(&mut self, time: Duration, wrong: &str) -> Result<()> {
        let ended = self.ended(time).await;
        ensure!(ended.is_err(), "{wrong}{}", self.state());
        Ok(())
    }

    /// Waits until all of its output is read. A process that it left may keep the pipes open.
    pub async fn drain(&mut self) -> Result<()> {
        let both = async { tokio::join!(self.stdout.end(), self.stderr.end()) };
        match within(SOON, Vec::new, both).await {
            (_, Some(_)) => Ok(()),
            (_, None) => {
                bail!("it ended, and a process that it started keeps its stdout or stderr open")
            }
        }
    }

    /// Ends it as a host does, or by SIGTERM without a piped stdin.
    pub async fn stop(&mut self) -> Result<Output> {
        if self.stdin.is_some() {
            self.send(&json!({"dcs": 1, "type": "shutdown"})).await?;
            self.close_stdin();
        } else {
            self.signal(Signal::TERM);
        }
        self.end().await
    }
}

/// Polls until there is a result.
pub async fn until_some<T>(look: impl Fn() -> Option<T>) -> T {
    loop {
        if let Some(found) = look() {
            return found;
        }
        sleep(PAUSE).await;
    }
}

fn named(pipe: impl AsFd) -> std::io::Result<String> {
    Ok(format!("pipe:[{}]", rustix::fs::fstat(pipe)?.st_ino))
}

/// A line as a message; the error says what is wrong with it.
pub fn parse(line: &[u8]) -> Result<Value> {
    let wrong = |why: String| anyhow!("a line on stdout is not a message: {why}: {}", shown(line));
    let length = line.len();
    if length > MAX_LINE {
        let why = format!("it has {length} bytes, the limit is {MAX_LINE}");
        return Err(wrong(why));
    }
    let decoded = message::decode_message(line);
    if let Err(e @ (DecodeError::Malformed(_) | DecodeError::Version(_))) = decoded {
        return Err(wrong(e.to_string()));
    }
    let value: Value = serde_json::from_slice(line).map_err(|e| wrong(e.to_string()))?;
    match value["stage"].is_string() {
        true => Ok(value),
        false => Err(wrong("\"stage\" is missing".into())),
    }
}
