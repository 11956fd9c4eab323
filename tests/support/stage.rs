//! A stage under test, and what it says.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::DEADLINE;

/// How long the end of what a stage wrote may take to be read.
const LAST_WORDS: Duration = Duration::from_secs(2);

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

/// A running stage whose messages are read as they come.
#[derive(Debug)]
pub struct StageClient {
    child: Child,
    started: Instant,
    lines: mpsc::UnboundedReceiver<String>,
    messages: Vec<(Value, Duration)>,
    stderr: Arc<Mutex<String>>,
    readers: JoinSet<()>,
}

impl StageClient {
    /// Starts it, with stdin as the command has it, and every message on stdout.
    pub fn start(mut command: Command) -> StageClient {
        command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let started = Instant::now();
        let mut child = command.spawn().expect("cannot start the stage");
        let (sender, lines) = mpsc::unbounded_channel();
        let stderr = Arc::new(Mutex::new(String::new()));
        let mut readers = JoinSet::new();
        readers.spawn(each_line(
            child.stdout.take().expect("no stdout"),
            move |line| drop(sender.send(line)),
        ));
        readers.spawn(each_line(child.stderr.take().expect("no stderr"), {
            let stderr = stderr.clone();
            move |line| *stderr.lock().unwrap_or_else(PoisonError::into_inner) += &(line + "\n")
        }));
        StageClient {
            child,
            started,
            lines,
            messages: Vec::new(),
            stderr,
            readers,
        }
    }

    /// The next message of this type.
    pub async fn wait_for(&mut self, kind: &str) -> Value {
        self.wait_until(kind, |message| message["type"] == kind)
            .await
    }

    /// The next message that fits. Fails, with what was said until then, when none comes in time.
    pub async fn wait_until(&mut self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let deadline = tokio::time::Instant::now() + DEADLINE;
        loop {
            let line = match tokio::time::timeout_at(deadline, self.lines.recv()).await {
                Ok(Some(line)) => line,
                Ok(None) => panic!("the stage ended without {what}\n{}", self.said()),
                Err(_) => panic!("no {what} within {DEADLINE:?}\n{}", self.said()),
            };
            let message: Value = match serde_json::from_str(&line) {
                Ok(message) => message,
                Err(e) => panic!("not JSON: {line}: {e}\n{}", self.said()),
            };
            // `ready` is written twice in one write.
            if self
                .messages
                .last()
                .is_some_and(|(last, _)| *last == message && message["type"] == "ready")
            {
                continue;
            }
            self.messages
                .push((message.clone(), self.started.elapsed()));
            if fits(&message) {
                return message;
            }
        }
    }

    /// The next log message that contains this text.
    pub async fn wait_for_log(&mut self, text: &str) -> Value {
        let what = format!("a log of {text:?}");
        let told = |message: &Value| {
            message["message"]
                .as_str()
                .is_some_and(|m| m.contains(text))
        };
        self.wait_until(&what, |message| message["type"] == "log" && told(message))
            .await
    }

    /// How long after the start the last message came.
    pub fn last_message_after(&self) -> Duration {
        self.messages
            .last()
            .map_or(Duration::ZERO, |(_, after)| *after)
    }

    /// Whether a message of this type came so far.
    pub fn has_said(&self, kind: &str) -> bool {
        self.messages
            .iter()
            .any(|(message, _)| message["type"] == kind)
    }

    pub fn pid(&self) -> Pid {
        let id = self.child.id().expect("the stage has ended");
        Pid::from_raw(id as i32).expect("0 is no process id")
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("cannot signal the stage");
    }

    /// Waits for the end, and returns how it ended and how long that took from now on.
    pub async fn wait(&mut self) -> (ExitStatus, Duration) {
        let from = Instant::now();
        match tokio::time::timeout(DEADLINE, self.child.wait()).await {
            Ok(status) => {
                let took = from.elapsed();
                // Its last words are in the pipe still; what it started may hold that open for longer.
                let read = async { while self.readers.join_next().await.is_some() {} };
                drop(tokio::time::timeout(LAST_WORDS, read).await);
                (status.expect("cannot wait for the stage"), took)
            }
            Err(_) => panic!("the stage did not end within {DEADLINE:?}\n{}", self.said()),
        }
    }

    /// What it wrote for people.
    pub fn stderr(&self) -> String {
        self.stderr
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn said(&self) -> String {
        let messages: Vec<String> = self
            .messages
            .iter()
            .map(|(message, after)| format!("{:.3} s {message}", after.as_secs_f64()))
            .collect();
        let stderr = self.stderr();
        let lines: Vec<&str> = stderr.lines().collect();
        let tail = lines[lines.len().saturating_sub(30)..].join("\n");
        format!("messages:\n{}\nstderr:\n{tail}", messages.join("\n"))
    }
}

async fn each_line(reader: impl AsyncRead + Unpin, mut take: impl FnMut(String)) {
    let mut lines = BufReader::new(reader).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        take(line);
    }
}
