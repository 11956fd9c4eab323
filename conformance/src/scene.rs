//! A world of its own for one run: a home, a run directory, and eyes for what is left in them.

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

/// A canary: set in the environment of every stage, and of no use to any.
const CANARY: &str = "DEVCLUSTER_CONFORMANCE_SECRET";

/// What any verb that ends by itself may take.
const SLOW: Duration = Duration::from_secs(30);

/// How long the last `cleanup` may take.
const LAST: Duration = Duration::from_secs(10);

pub(super) struct Scene<'a> {
    pub(super) subject: &'a Subject,
    /// Always there, until it is dropped.
    home: Option<TempDir>,
    path: PathBuf,
    before: BTreeSet<u16>,
}

impl<'a> Scene<'a> {
    /// What scenes before this one left to be cleaned up would stand in its way.
    pub(super) async fn new(subject: &'a Subject) -> Result<Scene<'a>> {
        tidy(subject).await;
        // Short: a socket's path may have 108 bytes.
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

    /// Another world for the same program.
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

    /// Found in the environment of every process that was started from here, directly or not.
    fn mark(&self) -> String {
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
        for inherited in ["RUNTIME_DIR", "CONFIG_HOME", "CACHE_HOME", "DATA_HOME"] {
            command.env_remove(format!("XDG_{inherited}"));
        }
        command
    }

    /// The program under test, with nothing behind its own words.
    pub(super) fn bare(&self) -> Command {
        let words = &self.subject.program;
        let mut command = self.program(&words[0]);
        command.args(&words[1..]);
        command
    }

    /// The program under test with a verb, and the flags that every verb but `describe` has.
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

    /// The same with its config in a file, as devcluster calls a full stage.
    pub(super) fn configured(&self, verb: &str, args: &[&str]) -> Result<Command> {
        let file = self.config_file("config.json", &self.subject.start_config())?;
        let mut command = self.verb(verb, &[]);
        command.arg("--config").arg(file).args(args);
        Ok(command)
    }

    /// Runs a verb to its end.
    pub(super) async fn call(&self, verb: &str, args: &[&str]) -> Result<Output> {
        self.output(self.verb(verb, args)).await
    }

    /// Runs a command to its end. `wait` alone may take ten seconds, however quickly a stage becomes ready.
    pub(super) async fn output(&self, command: Command) -> Result<Output> {
        let limit = self.subject.patience.max(SLOW);
        Running::spawn(command)?.end_within(limit).await
    }

    /// Starts the program under test with the stdin that the command has.
    pub(super) fn spawn(&self, command: Command) -> Result<Running> {
        Running::spawn(command).map(|running| self.patient(running))
    }

    /// Starts the program under test to be spoken to.
    pub(super) fn spawn_hosted(&self, command: Command) -> Result<Running> {
        Running::spawn_hosted(command).map(|running| self.patient(running))
    }

    fn patient(&self, mut running: Running) -> Running {
        running.patience = self.subject.patience;
        running
    }

    /// `run` as a host calls it. Nothing was sent yet.
    pub(super) fn hosted(&self) -> Result<Running> {
        self.spawn_hosted(self.verb("run", &["--stdin", "control"]))
    }

    /// The same, with `start` sent.
    pub(super) async fn started(&self) -> Result<Running> {
        let mut running = self.hosted()?;
        running.tell(&self.start()).await?;
        Ok(running)
    }

    /// The same, and ready.
    pub(super) async fn ready(&self) -> Result<Running> {
        let mut running = self.started().await?;
        running.ready().await?;
        Ok(running)
    }

    /// `run` of a full stage as devcluster calls it, but with every message on stdout.
    pub(super) fn listed(&self) -> Result<Running> {
        self.spawn(self.configured("run", &["--events", "all"])?)
    }

    /// A config file that only its owner reads.
    pub(super) fn config_file(&self, name: &str, config: &Value) -> Result<PathBuf> {
        let path = self.home().join(name);
        protocol::files::replace(&path, config.to_string().as_bytes(), false)?;
        Ok(path)
    }

    pub(super) fn start(&self) -> Value {
        json!({"dcs": 1, "type": "start", "config": self.subject.start_config()})
    }

    /// A message with the config of a `start` and a field in it that the program does not know.
    pub(super) fn with_unknown_field(&self, kind: &str) -> Value {
        let mut message = self.start();
        message["type"] = json!(kind);
        message["config"]["no_such_field"] = json!(1);
        message
    }

    pub(super) fn outputs_path(&self) -> PathBuf {
        self.run_dir().join(format!("outputs/{INSTANCE}.json"))
    }

    /// The outputs file, when it is there.
    pub(super) fn outputs_file(&self) -> Option<Value> {
        serde_json::from_slice(&std::fs::read(self.outputs_path()).ok()?).ok()
    }

    pub(super) fn processes(&self) -> Vec<machine::Process> {
        machine::processes(&self.mark())
    }

    /// Listening ports that were not there before and that it holds, or names in its outputs.
    pub(super) fn ports(&self, outputs: &Value) -> BTreeSet<u16> {
        let mut ports = machine::ports_of(&self.processes());
        let open = machine::listening();
        let named = numbers(outputs).into_iter();
        ports.extend(named.filter(|port| open.contains(port)));
        ports.difference(&self.before).copied().collect()
    }

    /// Waits until no process of this world is left.
    pub(super) async fn no_process_is_left(&self) -> Verdict {
        let left = self.until_empty(|| self.processes()).await;
        match left.first() {
            None => Ok(()),
            Some(process) => bail!("it left a process behind: {process}"),
        }
    }

    /// Waits until nobody listens on these ports.
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

    /// Files of this world, relative to the home.
    pub(super) fn files(&self) -> BTreeSet<PathBuf> {
        let all = machine::files(self.home()).into_iter();
        let relative = |file: PathBuf| Some(file.strip_prefix(self.home()).ok()?.to_owned());
        all.filter_map(relative).collect()
    }

    /// Whether there are files that were not there before.
    pub(super) fn no_new_file(&self, before: &BTreeSet<PathBuf>) -> Verdict {
        match self.files().difference(before).next() {
            None => Ok(()),
            Some(new) => bail!("it wrote ~/{}", new.display()),
        }
    }

    /// Whether a run that was killed here may have left something that a `cleanup` takes away.
    fn is_untidy(&self, had_processes: bool) -> bool {
        let has_files = |dir: &str| !machine::files(&self.home().join(dir)).is_empty();
        let noted = has_files("state") || (!self.subject.is_stage() && has_files("run"));
        self.subject.has("cleanup") && (had_processes || noted)
    }
}

/// All that may be ports.
fn numbers(value: &Value) -> Vec<u16> {
    match value {
        Value::Number(n) => Vec::from_iter(n.as_u64().and_then(|n| n.try_into().ok())),
        Value::Array(items) => items.iter().flat_map(numbers).collect(),
        Value::Object(map) => map.values().flat_map(numbers).collect(),
        _ => Vec::new(),
    }
}

/// Has the program clean up where it was killed: what such a run made outside of its world would stand in the way of the
/// next one.
pub(super) async fn tidy(subject: &Subject) {
    loop {
        let Some(home) = subject.untidy.borrow_mut().pop() else {
            return;
        };
        let mut scene = Scene::at(subject, home);
        // Nothing depends on what it says.
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
