//! A stage that runs, and what it says.

use std::os::fd::OwnedFd;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use protocol::message::{self, DecodeError};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::net::unix::pipe::{Receiver, Sender};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

use super::heard::{Heard, pipe};
use super::scene::{SOON, Scene};
use super::verdict::{Finding, failed, shown};

/// Lines of stderr that a finding shows.
const TAIL: usize = 8;

/// What to do with the three streams.
#[derive(Debug, Default)]
pub(super) struct Streams {
    pub(super) stdin: Input,
    /// Start it with this one of 1 and 2 closed.
    pub(super) closed: Option<i32>,
}

#[derive(Debug, Default)]
pub(super) enum Input {
    /// What the command has, else a pipe where it says `--stdin`.
    #[default]
    Pipe,
    Null,
    Closed,
    Terminal(OwnedFd),
}

pub(super) struct Running {
    child: Child,
    pid: Pid,
    stdin: Option<Sender>,
    pub(super) stdout: Heard,
    pub(super) stderr: Heard,
    /// Up to where `until` has looked.
    looked: usize,
    ended: Option<ExitStatus>,
    stdout_reader: JoinSet<()>,
    stderr_reader: JoinSet<()>,
    patience: Duration,
    /// Its stdout and stderr as /proc names them.
    pipes: [String; 2],
}

/// How a verb ended.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) code: Option<i32>,
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: String,
    pub(super) took: Duration,
}

impl Output {
    /// How it ended, for people.
    pub(super) fn shown(&self) -> String {
        let code = self.code.map_or_else(
            || "by a signal".to_owned(),
            |c| format!("with exit code {c}"),
        );
        format!("it ended {code}{}", tail(&self.stderr))
    }
}

fn tail(stderr: &str) -> String {
    let lines: Vec<&str> = stderr.trim_end().lines().collect();
    match lines.as_slice() {
        [] => "; stderr is empty".to_owned(),
        lines => format!(
            "; stderr:\n{}",
            lines[lines.len().saturating_sub(TAIL)..].join("\n")
        ),
    }
}

impl Running {
    pub(super) fn spawn(
        scene: &Scene,
        mut command: Command,
        streams: Streams,
    ) -> Result<Running, Finding> {
        let (out, stdout) = pipe()?;
        let (err, stderr) = std::io::pipe()?;
        command
            .stdout(Stdio::from(stdout))
            .stderr(Stdio::from(stderr));
        let mut closed = streams.closed;
        let stdin = match streams.stdin {
            Input::Pipe => {
                let (theirs, ours) = std::io::pipe()?;
                command.stdin(Stdio::from(theirs));
                Some(Sender::from_owned_fd(ours.into())?)
            }
            Input::Terminal(fd) => {
                command.stdin(Stdio::from(fd));
                None
            }
            Input::Null => None,
            Input::Closed => {
                closed = Some(0);
                None
            }
        };
        if let Some(fd) = closed {
            close_in_child(&mut command, fd);
        }
        let pipes = [named(&out)?, named(&err)?];
        let child = command.spawn();
        // It holds our copies of the writing ends.
        drop(command);
        let child = child.or_else(|e| failed(format!("cannot start it: {e}")))?;
        let pid = child.id().and_then(|id| Pid::from_raw(id as i32));
        let mut running = Running {
            pid: pid.ok_or_else(|| Finding::Failed("it has no process id".into()))?,
            child,
            stdin,
            stdout: Heard::default(),
            stderr: Heard::default(),
            looked: 0,
            ended: None,
            stdout_reader: JoinSet::new(),
            stderr_reader: JoinSet::new(),
            patience: scene.subject.patience,
            pipes,
        };
        running
            .stdout_reader
            .spawn(running.stdout.clone().listen(Receiver::from_owned_fd(out)?));
        running.stderr_reader.spawn(
            running
                .stderr
                .clone()
                .listen(Receiver::from_owned_fd(err.into())?),
        );
        Ok(running)
    }

    pub(super) fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    pub(super) fn pipes(&self) -> [String; 2] {
        self.pipes.clone()
    }

    pub(super) fn signal(&self, signal: Signal) {
        if self.ended.is_none() {
            // It may have ended by itself.
            let _ = kill_process(self.pid, signal);
        }
    }

    /// As a host's death ends a plugin: the whole group.
    pub(super) fn kill(&self, group: bool) {
        let _ = match group {
            true => kill_process_group(self.pid, Signal::KILL),
            false => kill_process(self.pid, Signal::KILL),
        };
    }

    pub(super) async fn tell(&mut self, command: &Value) -> Result<(), Finding> {
        self.write(format!("{command}\n").as_bytes()).await
    }

    /// Writes bytes to its stdin. That it does not read them, or has ended, shows elsewhere.
    pub(super) async fn write(&mut self, bytes: &[u8]) -> Result<(), Finding> {
        let Some(stdin) = &mut self.stdin else {
            return failed("the kit wrote to a stdin that is closed");
        };
        match timeout(SOON, stdin.write_all(bytes)).await {
            Ok(_) => Ok(()),
            Err(_) => failed(format!(
                "it does not read its stdin{}",
                tail(&self.stderr.text())
            )),
        }
    }

    pub(super) fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// Closes our end of its stdout or stderr.
    pub(super) fn stop_reading(&mut self, fd: i32) {
        match fd {
            1 => self.stdout_reader = JoinSet::new(),
            _ => self.stderr_reader = JoinSet::new(),
        }
    }

    /// What a finding adds about its state.
    pub(super) fn state(&self) -> String {
        tail(&self.stderr.text())
    }

    /// The next message that fits.
    pub(super) async fn until(
        &mut self,
        what: &str,
        fits: impl Fn(&Value) -> bool,
    ) -> Result<Value, Finding> {
        self.until_within(self.patience, what, fits).await
    }

    pub(super) async fn until_within(
        &mut self,
        patience: Duration,
        what: &str,
        fits: impl Fn(&Value) -> bool,
    ) -> Result<Value, Finding> {
        let deadline = Instant::now() + patience;
        loop {
            let stdout = self.stdout.clone();
            let news = stdout.news();
            let closed = stdout.is_closed();
            let (lines, end) = stdout.lines_from(self.looked);
            let mut at = self.looked;
            for line in lines {
                at += line.len();
                let message = parse(&line).or_else(failed)?;
                if fits(&message) {
                    self.looked = at;
                    return Ok(message);
                }
            }
            self.looked = end;
            if closed {
                return failed(format!(
                    "it closed its stdout without {what}{}",
                    self.state()
                ));
            }
            if timeout_at(deadline, news).await.is_err() {
                let after = patience.as_secs_f32();
                return failed(format!("no {what} after {after} s{}", self.state()));
            }
        }
    }

    pub(super) async fn next(&mut self, kind: &str) -> Result<Value, Finding> {
        self.until(&format!("`{kind}`"), |m| m["type"] == kind)
            .await
    }

    pub(super) async fn ready(&mut self) -> Result<Value, Finding> {
        self.next("ready").await
    }

    /// Every message so far; lines that are none are left out.
    pub(super) fn messages(&self) -> Vec<Value> {
        let (lines, _) = self.stdout.lines_from(0);
        lines.iter().filter_map(|l| parse(l).ok()).collect()
    }

    /// The last message of a type.
    pub(super) fn last(&self, kind: &str) -> Option<Value> {
        self.messages()
            .into_iter()
            .rev()
            .find(|m| m["type"] == kind)
    }

    /// Waits for its end, not for that of its pipes.
    pub(super) async fn ended(
        &mut self,
        within: Duration,
    ) -> Result<(ExitStatus, Duration), Finding> {
        let from = Instant::now();
        match timeout(within, self.child.wait()).await {
            Ok(status) => {
                let status = status?;
                self.ended = Some(status);
                Ok((status, from.elapsed()))
            }
            Err(_) => failed(format!(
                "it did not end within {} s{}",
                within.as_secs_f32(),
                self.state()
            )),
        }
    }

    /// Whether it still runs after this long.
    pub(super) async fn stays(&mut self, time: Duration) -> bool {
        timeout(time, self.child.wait()).await.is_err()
    }

    /// Waits until everything that it wrote was read. Something that it left may hold the pipes.
    pub(super) async fn heard_out(&mut self) -> Result<(), Finding> {
        let both = async {
            tokio::join!(
                self.stdout_reader.join_next(),
                self.stderr_reader.join_next()
            )
        };
        match timeout(SOON, both).await {
            Ok(_) => Ok(()),
            Err(_) => {
                failed("it ended, and something that it started still holds its stdout or stderr")
            }
        }
    }

    /// Ends it as a host does, and waits for that.
    pub(super) async fn stop(&mut self) -> Result<ExitStatus, Finding> {
        if self.stdin.is_some() {
            self.tell(&serde_json::json!({"dcs": 1, "type": "shutdown"}))
                .await?;
            self.close_stdin();
        } else {
            self.signal(Signal::TERM);
        }
        let (status, _) = self.ended(SOON).await?;
        self.heard_out().await?;
        Ok(status)
    }

    /// Waits for the end of a verb that ends by itself.
    pub(super) async fn output(mut self, within: Duration) -> Result<Output, Finding> {
        self.close_stdin();
        let (status, took) = self.ended(within).await?;
        self.heard_out().await?;
        Ok(Output {
            code: status.code(),
            stdout: self.stdout.bytes(),
            stderr: self.stderr.text(),
            took,
        })
    }
}

fn named(pipe: impl std::os::fd::AsFd) -> std::io::Result<String> {
    Ok(format!("pipe:[{}]", rustix::fs::fstat(pipe)?.st_ino))
}

/// A line as a message; the error says what is wrong with it.
pub(super) fn parse(line: &[u8]) -> Result<Value, String> {
    let wrong = |why: String| format!("a line on stdout is no message: {why}: {}", shown(line));
    if line.len() > protocol::frame::MAX_LINE {
        return Err(wrong(format!(
            "{} bytes, and {} is the limit",
            line.len(),
            protocol::frame::MAX_LINE
        )));
    }
    match message::decode_message(line) {
        Ok(_) => {}
        Err(e @ (DecodeError::Malformed(_) | DecodeError::Version(_))) => {
            return Err(wrong(e.to_string()));
        }
    }
    let value: Value = serde_json::from_slice(line).map_err(|e| wrong(e.to_string()))?;
    match value["stage"].is_string() {
        true => Ok(value),
        false => Err(wrong("without \"stage\"".into())),
    }
}

#[allow(
    unsafe_code,
    reason = "a descriptor of the child alone is closed between fork and exec"
)]
fn close_in_child(command: &mut Command, fd: i32) {
    let close = move || {
        // SAFETY: the child does not use it between here and exec; close is async-signal-safe.
        unsafe { rustix::io::close(fd) };
        Ok(())
    };
    // SAFETY: one plain system call.
    unsafe {
        command.pre_exec(close);
    }
}
