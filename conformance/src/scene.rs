//! A separate environment for one check: a home and a run directory, and methods that find what a stage leaves in them.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Result, bail};
use protocol::rundir::RunDir;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

use super::harness::{Output, Running, SOON, machine, until_some, within};
use super::subject::{INSTANCE, Subject};
use super::verdict::Verdict;

/// A canary: a secret in the environment of every stage that no stage needs.
const CANARY: &str = "DEVCLUSTER_CONFORMANCE_SECRET";

/// The time limit of verbs other than `run`.
const SLOW: Duration = Duration::from_secs(30);

/// The time limit of the last `cleanup`.
const LAST: Duration = Duration::from_secs(10);

pub(super) struct Scene<'a> {
    pub(super) subject: &'a Subject,
    /// `Some` until the scene is dropped.
    home: Option<TempDir>,
    path: PathBuf,
    before: BTreeSet<u16>,
}

impl<'a> Scene<'a> {
    /// Creates a scene. First it cleans up after earlier scenes with killed runs, whose leftovers could disturb it.
    pub(super) async fn new(subject: &'a Subject) -> Result<Scene<'a>> {
        tidy(subject).await;
        // Keep it short: the path of a socket has at most 108 bytes.
        let home = tempfile::Builder::new().prefix("dcs-").tempdir()?;
        for inside in ["tmp", "state", "run"] {
            std::fs::DirBuilder::new()
                .mode(0o700)
                .create(home.path().join(inside))?;
        }
        Ok(Scene::at(subject, home))
    }

    fn at(subject: &'a Subject, home: TempDir) -> Scene<'a> {
        Scene {
            subject,
            path: home.path().to_owned(),
            home: Some(home),
            before: machine::listening(),
        }
    }

    /// Another scene for the same program.
    pub(super) async fn another(&self) -> Result<Scene<'a>> {
        Scene::new(self.subject).await
    }

    pub(super) fn home(&self) -> &Path {
        &self.path
    }

    pub(super) fn run_dir(&self) -> PathBuf {
        self.home().join("run")
    }

    pub(super) fn open_run_dir(&self) -> Result<RunDir> {
        Ok(RunDir::open(&self.run_dir())?)
    }

    /// A mark in the environment of every process of this scene.
    fn mark(&self) -> String {
        format!("HOME={}", self.home().display())
    }

    /// The value of the canary, which must not appear anywhere.
    pub(super) fn canary(&self) -> String {
        format!("canary-{}", self.home().display()).replace('/', "-")
    }

    /// A command whose environment is this scene, without the user's own.
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
        for inherited in ["RUNTIME_DIR", "CONFIG_HOME", "CACHE_HOME", "DATA_HOME"] {
            command.env_remove(format!("XDG_{inherited}"));
        }
        command
    }

    /// The program under test, without a verb.
    pub(super) fn bare(&self) -> Command {
        let words = &self.subject.program;
        let mut command = self.program(&words[0]);
        command.args(&words[1..]);
        command
    }

    /// The program under test with a verb, and the flags of every verb except `describe`.
    pub(super) fn verb(&self, verb: &str, args: &[&str]) -> Command {
        let mut command = self.bare();
        command.arg(verb);
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

    /// The same with its config file, as devcluster calls a full stage.
    pub(super) fn configured(&self, verb: &str, args: &[&str]) -> Result<Command> {
        let file = self.config_file("config.json", &self.subject.start_config())?;
        let mut command = self.verb(verb, &[]);
        command.arg("--config").arg(file).args(args);
        Ok(command)
    }

    /// Runs a verb until it ends.
    pub(super) async fn call(&self, verb: &str, args: &[&str]) -> Result<Output> {
        self.output(self.verb(verb, args)).await
    }

    /// Runs a command until it ends. `wait` may take ten seconds.
    pub(super) async fn output(&self, command: Command) -> Result<Output> {
        let limit = self.subject.patience.max(SLOW);
        Running::spawn(command)?.end_within(limit).await
    }

    /// Starts the program under test with the stdin of the command.
    pub(super) fn spawn(&self, command: Command) -> Result<Running> {
        Running::spawn(command).map(|running| self.patient(running))
    }

    /// Starts the program under test with a piped stdin.
    pub(super) fn spawn_hosted(&self, command: Command) -> Result<Running> {
        Running::spawn_hosted(command).map(|running| self.patient(running))
    }

    fn patient(&self, mut running: Running) -> Running {
        running.patience = self.subject.patience;
        running
    }

    /// Starts `run` as a host does, without `start`.
    pub(super) fn hosted(&self) -> Result<Running> {
        self.spawn_hosted(self.verb("run", &["--stdin", "control"]))
    }

    /// The same, then sends `start`.
    pub(super) async fn started(&self) -> Result<Running> {
        let mut running = self.hosted()?;
        running.send(&self.start()).await?;
        Ok(running)
    }

    /// The same, then waits for `ready`.
    pub(super) async fn ready(&self) -> Result<Running> {
        let mut running = self.started().await?;
        running.ready().await?;
        Ok(running)
    }

    /// Starts `run` of a full stage as devcluster does, but with every message on stdout.
    pub(super) fn listed(&self) -> Result<Running> {
        self.spawn(self.configured("run", &["--events", "all"])?)
    }

    /// A config file that only its owner can read.
    pub(super) fn config_file(&self, name: &str, config: &Value) -> Result<PathBuf> {
        let path = self.home().join(name);
        protocol::files::replace(&path, config.to_string().as_bytes(), false)?;
        Ok(path)
    }

    pub(super) fn start(&self) -> Value {
        json!({"dcs": 1, "type": "start", "config": self.subject.start_config()})
    }

    /// A message with the config of a `start` and an unknown field.
    pub(super) fn with_unknown_field(&self, kind: &str) -> Value {
        let mut message = self.start();
        message["type"] = json!(kind);
        message["config"]["no_such_field"] = json!(1);
        message
    }

    pub(super) fn outputs_path(&self) -> PathBuf {
        self.run_dir().join(format!("outputs/{INSTANCE}.json"))
    }

    /// The outputs file, if it exists.
    pub(super) fn outputs_file(&self) -> Option<Value> {
        serde_json::from_slice(&std::fs::read(self.outputs_path()).ok()?).ok()
    }

    pub(super) fn processes(&self) -> Vec<machine::Process> {
        machine::processes(&self.mark())
    }

    /// New listening ports that it holds, or names in its outputs.
    pub(super) fn ports(&self, outputs: &Value) -> BTreeSet<u16> {
        let mut ports = machine::ports_of(&self.processes());
        let open = machine::listening();
        let named = numbers(outputs).into_iter();
        ports.extend(named.filter(|port| open.contains(port)));
        ports.difference(&self.before).copied().collect()
    }

    /// Waits until no process of this scene is left.
    pub(super) async fn no_process_is_left(&self) -> Verdict {
        let left = self.until_empty(|| self.processes()).await;
        match left.first() {
            None => Ok(()),
            Some(process) => bail!("it left a process: {process}"),
        }
    }

    /// Waits until these ports are closed.
    pub(super) async fn no_port_is_left(&self, ports: &BTreeSet<u16>) -> Verdict {
        let open = || machine::listening().intersection(ports).copied().collect();
        match self.until_empty(open).await.first() {
            None => Ok(()),
            Some(port) => bail!("port {port} is still open after its end"),
        }
    }

    async fn until_empty<T>(&self, left: impl Fn() -> Vec<T>) -> Vec<T> {
        let empty = until_some(|| left().is_empty().then_some(()));
        let pids = || self.processes().iter().map(|p| p.pid).collect();
        match within(SOON, pids, empty).await.1 {
            Some(()) => Vec::new(),
            None => left(),
        }
    }

    /// Files of this scene, relative to the home.
    pub(super) fn files(&self) -> BTreeSet<PathBuf> {
        let all = machine::files(self.home()).into_iter();
        let relative = |file: PathBuf| Some(file.strip_prefix(self.home()).ok()?.to_owned());
        all.filter_map(relative).collect()
    }

    /// Checks that there are no new files.
    pub(super) fn no_new_file(&self, before: &BTreeSet<PathBuf>) -> Verdict {
        match self.files().difference(before).next() {
            None => Ok(()),
            Some(new) => bail!("it wrote ~/{}", new.display()),
        }
    }

    /// Whether a run that was killed here may have left something for a `cleanup`.
    fn is_untidy(&self, with_processes: bool) -> bool {
        let has_files = |dir: &str| !machine::files(&self.home().join(dir)).is_empty();
        let noted = has_files("state") || (!self.subject.is_stage() && has_files("run"));
        self.subject.has("cleanup") && (with_processes || noted)
    }
}

/// All numbers in a value that may be ports.
fn numbers(value: &Value) -> Vec<u16> {
    match value {
        Value::Number(n) => Vec::from_iter(n.as_u64().and_then(|n| n.try_into().ok())),
        Value::Array(items) => items.iter().flat_map(numbers).collect(),
        Value::Object(map) => map.values().flat_map(numbers).collect(),
        _ => Vec::new(),
    }
}

/// Calls `cleanup` after kills: what a killed run created outside of its scene could disturb the next scene.
pub(super) async fn tidy(subject: &Subject) {
    loop {
        let Some(home) = subject.untidy.borrow_mut().pop() else {
            return;
        };
        let mut scene = Scene::at(subject, home);
        // Its result does not matter.
        if let Ok(mut cleanup) = Running::spawn(scene.verb("cleanup", &[])) {
            drop(cleanup.end_within(LAST).await);
        }
        kill(&scene.processes());
        scene.home = None;
    }
}

fn kill(processes: &[machine::Process]) {
    for pid in processes.iter().filter_map(|it| Pid::from_raw(it.pid)) {
        // It may have ended meanwhile.
        let _ = kill_process(pid, Signal::KILL);
    }
}

impl Drop for Scene<'_> {
    fn drop(&mut self) {
        let Some(home) = self.home.take() else { return };
        let left = self.processes();
        kill(&left);
        if self.is_untidy(!left.is_empty()) {
            self.subject.untidy.borrow_mut().push(home);
        }
    }
}
