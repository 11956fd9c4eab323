//! A stage under test, and what it says.

use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use conformance::harness::Running;
use rustix::process::{Pid, Signal};
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;

use crate::DEADLINE;

/// Time to read the rest of a stage's output.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// A user's home for a test: what stages keep goes here, and every process started from it bears its mark.
#[derive(Debug)]
pub struct Home(TempDir);

impl Home {
    pub fn new() -> Home {
        Home(
            tempfile::Builder::new()
                .prefix("dcs-test-")
                .tempdir()
                .expect("no temporary directory"),
        )
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// For `--run-dir`.
    pub fn run_dir(&self) -> PathBuf {
        self.path().join("run")
    }

    /// Found in the environment of every process that a command of ours started, directly or not.
    pub fn mark(&self) -> String {
        format!("HOME={}", self.path().display())
    }

    /// A command that sees this home and nothing of the user's own.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .env("HOME", self.path())
            .env("XDG_STATE_HOME", self.path().join("state"));
        for inherited in ["XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "SSH_AUTH_SOCK"] {
            command.env_remove(inherited);
        }
        command
    }
}

impl Default for Home {
    fn default() -> Self {
        Home::new()
    }
}

/// The code of the error that a program ended with, as people read it.
pub fn code_of(stderr: &str) -> &str {
    let line = stderr.lines().rev();
    let code = line.filter_map(|line| line.strip_prefix("  code: ")).next();
    code.unwrap_or_default()
}

/// A running program: a stage that speaks, or a driver that writes for people. What does not come fails the test.
#[derive(Debug)]
pub struct StageClient {
    running: Running,
    started: Instant,
    last_message: Duration,
}

impl StageClient {
    /// Starts it, with stdin as the command has it.
    pub fn start(command: Command) -> StageClient {
        StageClient::from_running(Running::spawn(command))
    }

    /// Starts it to be spoken to.
    pub fn hosted(command: Command) -> StageClient {
        StageClient::from_running(Running::spawn_hosted(command))
    }

    fn from_running(running: anyhow::Result<Running>) -> StageClient {
        StageClient {
            running: running.expect("cannot start it"),
            started: Instant::now(),
            last_message: Duration::ZERO,
        }
    }

    fn expect<T>(&self, came: anyhow::Result<T>) -> T {
        let (stdout, stderr) = (self.running.stdout.text(), self.running.stderr.text());
        came.unwrap_or_else(|e| panic!("{e:#}\nstdout:\n{stdout}\nstderr:\n{stderr}"))
    }

    /// Sends it a message.
    pub async fn tell(&mut self, message: Value) {
        let sent = self.running.send(&message).await;
        self.expect(sent);
    }

    pub async fn write(&mut self, bytes: &[u8]) {
        let written = self.running.write(bytes).await;
        self.expect(written);
    }

    pub fn close_stdin(&mut self) {
        self.running.close_stdin();
    }

    /// The next message of this type.
    pub async fn wait_for(&mut self, kind: &str) -> Value {
        self.wait_until(kind, |message| message["type"] == kind)
            .await
    }

    /// The next message that fits.
    pub async fn wait_until(&mut self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let came = self.running.until(what, fits).await;
        self.last_message = self.started.elapsed();
        self.expect(came)
    }

    /// The next log message that contains this text.
    pub async fn wait_for_log(&mut self, text: &str) -> Value {
        let has_text = |message: &Value| {
            let said = message["message"].as_str();
            message["type"] == "log" && said.is_some_and(|said| said.contains(text))
        };
        self.wait_until(&format!("a log of {text:?}"), has_text)
            .await
    }

    /// The next line on stderr that contains this text.
    pub async fn wait_for_line(&mut self, text: &str) -> String {
        let came = self.running.line(text).await;
        self.expect(came)
    }

    /// How long after the start the last message came.
    pub fn last_message_after(&self) -> Duration {
        self.last_message
    }

    /// Whether a message of this type came so far.
    pub fn has_said(&self, kind: &str) -> bool {
        !self.running.last(kind).is_null()
    }

    /// What it wrote to stdout.
    pub fn stdout(&self) -> String {
        self.running.stdout.text()
    }

    /// What it wrote for people.
    pub fn stderr(&self) -> String {
        self.running.stderr.text()
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.running.pid()).expect("0 is not a process id")
    }

    pub fn signal(&self, signal: Signal) {
        self.running.signal(signal);
    }

    /// Waits for the end, and returns how it ended and how much of its own time that took from now on.
    pub async fn wait(&mut self) -> (ExitStatus, Duration) {
        let ended = self.running.ended(DEADLINE).await;
        let ended = self.expect(ended);
        // The rest of its output is still in the pipe; its children may hold the pipe open for longer.
        drop(tokio::time::timeout(DRAIN_TIMEOUT, self.running.drain()).await);
        ended
    }
}
