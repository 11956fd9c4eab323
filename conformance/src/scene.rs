//! A world of its own for one check: a home, a run directory, and eyes for what is left in them.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;
use tokio::time::{Instant, sleep, timeout};

use super::running::{Input, Output, Running, Streams};
use super::subject::{INSTANCE, Subject};
use super::verdict::{Finding, Verdict, failed};
use super::world;

/// A canary: set in the environment of every stage, and of no use to any.
const CANARY: &str = "DEVCLUSTER_CONFORMANCE_SECRET";

/// How long something that has to go may take, on a machine that is busy.
pub(super) const SOON: Duration = Duration::from_secs(5);

/// What any verb that ends by itself may take.
const SLOW: Duration = Duration::from_secs(30);

/// The kernel tells nobody when a process that is not our child ends.
const PAUSE: Duration = Duration::from_millis(10);

pub(super) struct Scene<'a> {
    pub(super) subject: &'a Subject,
    home: TempDir,
    before: BTreeSet<u16>,
}

impl<'a> Scene<'a> {
    pub(super) fn new(subject: &'a Subject) -> Result<Scene<'a>, Finding> {
        // Short: a socket's path may have 108 bytes.
        let home = tempfile::Builder::new().prefix("dcs-").tempdir()?;
        for inside in ["tmp", "state", "run"] {
            std::fs::DirBuilder::new()
                .mode(0o700)
                .create(home.path().join(inside))?;
        }
        Ok(Scene {
            subject,
            home,
            before: world::listening(),
        })
    }

    pub(super) fn home(&self) -> &Path {
        self.home.path()
    }

    pub(super) fn run_dir(&self) -> PathBuf {
        self.home().join("run")
    }

    /// Found in the environment of every process that was started from here, directly or not.
    pub(super) fn mark(&self) -> String {
        format!("HOME={}", self.home().display())
    }

    /// What may be seen nowhere.
    pub(super) fn canary(&self) -> String {
        format!("canary-{}", self.home().display()).replace('/', "-")
    }

    /// A program that sees this world and nothing of the user's own.
    pub(super) fn program(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .env("HOME", self.home())
            .env("TMPDIR", self.home().join("tmp"))
            .env("XDG_STATE_HOME", self.home().join("state"))
            .env(CANARY, self.canary())
            .stdin(Stdio::null())
            .process_group(0)
            .kill_on_drop(true);
        for inherited in [
            "XDG_RUNTIME_DIR",
            "XDG_CONFIG_HOME",
            "XDG_CACHE_HOME",
            "XDG_DATA_HOME",
        ] {
            command.env_remove(inherited);
        }
        command
    }

    /// The program under test with a verb, and the flags that every verb but `describe` has.
    pub(super) fn verb(&self, verb: &str, args: &[&str]) -> Command {
        let words = &self.subject.program;
        let mut command = self.program(&words[0]);
        command.args(&words[1..]).arg(verb);
        if verb != "describe" {
            command
                .args(["--name", INSTANCE, "--run-dir"])
                .arg(self.run_dir());
        }
        command.args(args);
        if self.subject.is_stage() && ["run", "once", "check"].contains(&verb) {
            command.args(&self.subject.flags);
        }
        command
    }

    /// Runs a verb to its end.
    pub(super) async fn call(&self, verb: &str, args: &[&str]) -> Result<Output, Finding> {
        self.output(self.verb(verb, args)).await
    }

    /// Runs a command to its end. `wait` alone may take ten seconds, however quickly a stage becomes ready.
    pub(super) async fn output(&self, command: Command) -> Result<Output, Finding> {
        let within = self.subject.patience.max(SLOW);
        let running = Running::spawn(self, command, Streams::default())?;
        running.output(within).await
    }

    /// `run` as a host calls it. Nothing was sent yet.
    pub(super) fn hosted(&self) -> Result<Running, Finding> {
        Running::spawn(
            self,
            self.verb("run", &["--stdin", "control"]),
            Streams::default(),
        )
    }

    /// The same, with `start` sent.
    pub(super) async fn started(&self) -> Result<Running, Finding> {
        let mut running = self.hosted()?;
        running.tell(&self.start()).await?;
        Ok(running)
    }

    /// The same, and ready.
    pub(super) async fn ready(&self) -> Result<Running, Finding> {
        let mut running = self.started().await?;
        running.ready().await?;
        Ok(running)
    }

    /// `run` of a full stage as devcluster calls it, but with every message on stdout.
    pub(super) fn listed(&self) -> Result<Running, Finding> {
        let command = self.listed_command(&["--events", "all"])?;
        let streams = Streams {
            stdin: Input::Null,
            closed: None,
        };
        Running::spawn(self, command, streams)
    }

    pub(super) fn listed_command(&self, args: &[&str]) -> Result<Command, Finding> {
        let file = self.config_file("config.json", &self.subject.start_config())?;
        let mut command = self.verb("run", args);
        command.arg("--config").arg(file);
        Ok(command)
    }

    /// A config file that only its owner reads.
    pub(super) fn config_file(&self, name: &str, config: &Value) -> Result<PathBuf, Finding> {
        let path = self.home().join(name);
        protocol::files::replace(&path, config.to_string().as_bytes(), false)?;
        Ok(path)
    }

    pub(super) fn start(&self) -> Value {
        json!({"dcs": 1, "type": "start", "config": self.subject.start_config()})
    }

    /// `outputs/<instance>.json`, when it is there.
    pub(super) fn outputs_file(&self) -> Option<Value> {
        let path = self
            .run_dir()
            .join("outputs")
            .join(format!("{INSTANCE}.json"));
        serde_json::from_slice(&std::fs::read(path).ok()?).ok()
    }

    pub(super) fn processes(&self) -> Vec<world::Process> {
        world::processes(&self.mark())
    }

    /// Listening ports that were not there before and that it holds, or names in its outputs.
    pub(super) fn ports(&self, outputs: &Value) -> BTreeSet<u16> {
        let mut ports = world::ports_of(&self.processes());
        let open = world::listening();
        each_port(outputs, &mut |port| {
            if open.contains(&port) {
                ports.insert(port);
            }
        });
        ports.difference(&self.before).copied().collect()
    }

    /// Waits until no process of this world is left.
    pub(super) async fn no_process_is_left(&self) -> Verdict {
        let left = until_empty(|| self.processes()).await;
        match left.as_slice() {
            [] => Ok(()),
            [process, ..] => failed(format!("it left a process behind: {process}")),
        }
    }

    /// Waits until nobody listens on these ports.
    pub(super) async fn no_port_is_left(&self, ports: &BTreeSet<u16>) -> Verdict {
        let open = || world::listening().intersection(ports).copied().collect();
        match until_empty(open).await.as_slice() {
            [] => Ok(()),
            [port, ..] => failed(format!("port {port} is still open after its end")),
        }
    }

    /// Files of this world, relative to the home.
    pub(super) fn files(&self) -> BTreeSet<PathBuf> {
        let all = world::files(self.home()).into_iter();
        all.filter_map(|f| Some(f.strip_prefix(self.home()).ok()?.to_owned()))
            .collect()
    }
}

fn each_port(value: &Value, take: &mut impl FnMut(u16)) {
    match value {
        Value::Number(n) => n
            .as_u64()
            .and_then(|n| u16::try_from(n).ok())
            .into_iter()
            .for_each(take),
        Value::Array(items) => items.iter().for_each(|v| each_port(v, take)),
        Value::Object(map) => map.values().for_each(|v| each_port(v, take)),
        _ => {}
    }
}

async fn until_empty<T>(mut left: impl FnMut() -> Vec<T>) -> Vec<T> {
    let deadline = Instant::now() + SOON;
    loop {
        let now = left();
        if now.is_empty() || Instant::now() >= deadline {
            return now;
        }
        sleep(PAUSE).await;
    }
}

/// Waits for something that nobody tells of. `None` when it did not come in time.
pub(super) async fn eventually<T>(
    within: Duration,
    mut look: impl FnMut() -> Option<T>,
) -> Option<T> {
    let looking = async {
        loop {
            if let Some(found) = look() {
                return found;
            }
            sleep(PAUSE).await;
        }
    };
    timeout(within, looking).await.ok()
}

/// How long the last `cleanup` may take.
const LAST: Duration = Duration::from_secs(10);

impl Scene<'_> {
    /// What a killed run made outside of this world would stand in the way of the next check.
    fn clean_up(&self) {
        let mut command = self.verb("cleanup", &[]);
        let command = command.as_std_mut();
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let Ok(mut child) = command.spawn() else {
            return;
        };
        let deadline = std::time::Instant::now() + LAST;
        while let Ok(None) = child.try_wait() {
            if std::time::Instant::now() >= deadline {
                // It was not asked for its opinion: nothing depends on it any more.
                drop(child.kill());
            }
            std::thread::sleep(PAUSE);
        }
    }
}

impl Drop for Scene<'_> {
    fn drop(&mut self) {
        let left = self.processes();
        for process in &left {
            if let Some(pid) = Pid::from_raw(process.pid) {
                // It may have ended meanwhile.
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        let noted = ["state", "run"].map(|d| !world::files(&self.home().join(d)).is_empty());
        let may_be_left = !left.is_empty() || noted[0] || (noted[1] && !self.subject.is_stage());
        if may_be_left && self.subject.has("cleanup") {
            self.clean_up();
        }
    }
}
