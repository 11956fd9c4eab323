//! Stock devcluster, driven by its own Python API.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout};

use crate::{Home, build_dir};

/// A start with several stages on a machine that is busy building.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A program of the Python environment that `make deps` makes.
pub fn python_program(variable: &str, name: &str) -> PathBuf {
    let path = std::env::var_os(variable)
        .map_or_else(|| build_dir().join("venv/bin").join(name), PathBuf::from);
    assert!(path.exists(), "no {}; hint: make deps", path.display());
    path
}

/// A running devcluster and what it says.
pub struct TestDevcluster {
    child: Child,
    stdin: ChildStdin,
    events: Lines<BufReader<ChildStdout>>,
    log: String,
    /// The process id of devcluster itself.
    pub pid: Pid,
}

impl TestDevcluster {
    /// Starts it with a compiled file and no target.
    pub async fn start(home: &Home, file: &Path) -> TestDevcluster {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/support/drive.py");
        let mut child = home
            .command(&python_program("DEVCLUSTER_PYTHON", "python"))
            .arg(script)
            .arg(file)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("cannot start devcluster");
        let stdin = child.stdin.take().expect("no stdin");
        let events = BufReader::new(child.stdout.take().expect("no stdout")).lines();
        let mut devcluster = TestDevcluster {
            child,
            stdin,
            events,
            log: String::new(),
            pid: Pid::INIT,
        };
        let started = devcluster
            .wait_for("the start", |e| e["event"] == "started")
            .await;
        let pid = started["pid"]
            .as_i64()
            .and_then(|p| Pid::from_raw(p as i32));
        devcluster.pid = pid.expect("no pid");
        devcluster
    }

    async fn tell(&mut self, command: Value) {
        let line = format!("{command}\n");
        let written = self.stdin.write_all(line.as_bytes()).await;
        written.expect("devcluster's driver is gone");
    }

    pub async fn set_target(&mut self, stage: &str) {
        self.tell(json!({"do": "set_target", "stage": stage})).await;
    }

    pub async fn restart(&mut self, stage: &str) {
        self.tell(json!({"do": "restart", "stage": stage})).await;
    }

    pub async fn kill(&mut self, stage: &str, signal: &str) {
        self.tell(json!({"do": "kill", "stage": stage, "signal": signal}))
            .await;
    }

    /// The next event that fits.
    pub async fn wait_for(&mut self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let line = match tokio::time::timeout_at(deadline, self.events.next_line()).await {
                Ok(Ok(Some(line))) => line,
                Ok(end) => panic!("devcluster ended without {what}: {end:?}\n{}", self.log),
                Err(_) => panic!("no {what} within {PATIENCE:?}\n{}", self.log),
            };
            let event: Value = serde_json::from_str(&line).expect("the driver writes JSON");
            match event["text"].as_str() {
                Some(text) => {
                    let stream = event["stream"].as_str().unwrap_or_default();
                    self.log.push_str(&format!("{stream}| {text}"));
                }
                None => self.log.push_str(&format!("{line}\n")),
            }
            if fits(&event) {
                return event;
            }
        }
    }

    /// Waits until a stage is in this state: DOWN, PRECMD, POSTCMD, UP or CRASHED.
    pub async fn wait_until(&mut self, stage: &str, state: &str) {
        self.wait_for(&format!("{stage} {state}"), |e| e["stages"][stage] == state)
            .await;
    }

    /// Waits until a stage logs a line with this text.
    pub async fn wait_for_log(&mut self, stage: &str, text: &str) {
        self.wait_for(&format!("`{text}` from {stage}"), |e| {
            e["stream"] == stage && e["text"].as_str().is_some_and(|t| t.contains(text))
        })
        .await;
    }

    /// The state of a stage, as of the last event that was waited for.
    pub fn state(&self, stage: &str) -> Option<String> {
        let lines = self.log.lines().rev();
        let mut events = lines.filter_map(|l| serde_json::from_str::<Value>(l).ok());
        let status = events.find(|e| e["stages"].is_object())?;
        status["stages"][stage].as_str().map(str::to_owned)
    }

    /// Everything that was logged so far.
    pub fn log(&self) -> &str {
        &self.log
    }

    /// Quits as devcluster's own API does, and returns devcluster's exit code.
    pub async fn close(mut self) -> i64 {
        self.tell(json!({"do": "close"})).await;
        let closed = self.wait_for("the end", |e| e["event"] == "closed").await;
        drop(self.child.wait().await);
        closed["code"].as_i64().unwrap_or(i64::MIN)
    }

    /// Kills devcluster itself, as a crash would.
    pub async fn kill_devcluster(mut self) {
        kill_process(self.pid, Signal::KILL).expect("cannot kill devcluster");
        drop(self.child.kill().await);
    }
}
