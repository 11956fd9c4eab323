//! The processes: a few for all tests of a run, each for one test at a time.

use std::collections::BTreeSet;
use std::fs::{DirBuilder, File};
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Value;

use super::{LIMITED, STAGE};
use crate::build_dir;

/// Ends the server with the run, and what it kept.
const SERVE: &str = r#"while kill -0 "$1" 2>/dev/null; do sleep 1; done | "$2" api --dir "$3" --tokens "$3/tokens.csv" --port "$4"
rm -rf "$3""#;

/// How many of them tests take turns at; nextest's group has as many threads.
const SIDE_BY_SIDE: usize = 2;

pub(super) struct Server {
    pub(super) files: PathBuf,
    pub(super) port: u16,
    /// What was there before any test.
    pub(super) baseline: Option<BTreeSet<String>>,
    dir: PathBuf,
    /// The process group of the server and the shell that ends it.
    group: Pid,
    /// Locked while a test has the server.
    _turn: File,
}

/// The run's name, and the process that it ends with: nextest, or else this program.
fn run() -> (String, Pid) {
    let nextest = std::env::var("NEXTEST_RUN_ID").ok();
    match nextest.zip(rustix::process::getppid()) {
        Some(run) => run,
        None => (std::process::id().to_string(), rustix::process::getpid()),
    }
}

/// The directory of the run's `n`th, and the lock of who has it.
fn place(run: &str, n: usize) -> (PathBuf, File) {
    let dir = std::env::temp_dir().join(format!("devcluster-kube-{run}-{n}"));
    let made = DirBuilder::new().recursive(true).mode(0o700).create(&dir);
    made.expect("no temporary directory");
    let turn = File::create(dir.join("turn")).expect("cannot make a lock");
    (dir, turn)
}

impl Server {
    /// One of the run's, when it is free. `None`: none is built.
    pub(super) fn any() -> Option<Server> {
        let (run, _) = run();
        let free = |n: &usize| place(&run, *n).1.try_lock().is_ok();
        Server::take((0..SIDE_BY_SIDE).find(free).unwrap_or(0))
    }

    /// The run's `n`th, when its turn comes.
    pub(super) fn take(n: usize) -> Option<Server> {
        let files = build_dir().join("bed");
        if !program(&files).exists() {
            return None;
        }
        let (run, ends_with) = run();
        let (dir, turn) = place(&run, n);
        turn.lock().expect("cannot lock");
        let (port, group) = serving(&dir).unwrap_or_else(|| {
            let lines = format!("{STAGE},{STAGE},1,\"system:masters\"\n{LIMITED},{LIMITED},2\n");
            std::fs::write(dir.join("tokens.csv"), lines).expect("cannot write the tokens");
            spawn(&files, &dir, 0, ends_with)
        });
        let baseline = std::fs::read(dir.join("baseline")).ok();
        Some(Server {
            files,
            port,
            baseline: baseline.and_then(|it| serde_json::from_slice(&it).ok()),
            dir,
            group,
            _turn: turn,
        })
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn note_baseline(&self, baseline: &BTreeSet<String>) {
        let text = serde_json::to_string(baseline).expect("JSON");
        std::fs::write(self.dir.join("baseline"), text).expect("cannot write the baseline");
    }

    pub(super) fn kill(&self) {
        kill_process_group(self.group, Signal::KILL).expect("cannot kill kube-apiserver");
        while is_served(self.port) {
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// At the same address, with its data.
    pub(super) fn revive(&mut self) {
        let (_, ends_with) = run();
        (_, self.group) = spawn(&self.files, &self.dir, self.port, ends_with);
    }
}

fn program(files: &Path) -> PathBuf {
    files.join("bed")
}

fn is_served(port: u16) -> bool {
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
}

/// The port and process group of the server that an earlier test has started, if it still serves.
fn serving(dir: &Path) -> Option<(u16, Pid)> {
    let text = std::fs::read_to_string(dir.join("serving")).ok()?;
    let (port, group) = text.split_once(' ')?;
    let port = port.parse().ok().filter(|port| is_served(*port))?;
    Some((port, Pid::from_raw(group.parse().ok()?)?))
}

/// The server once it serves: its port and its process group.
#[allow(
    clippy::zombie_processes,
    reason = "it serves the tests after this one, in processes of their own"
)]
fn spawn(files: &Path, dir: &Path, port: u16, ends_with: Pid) -> (u16, Pid) {
    let log = File::create(dir.join("log")).expect("cannot make a log");
    let mut child = Command::new("sh")
        .args(["-c", SERVE, "sh", &ends_with.as_raw_nonzero().to_string()])
        .args([&program(files), dir])
        .arg(port.to_string())
        // Every CRD costs it much garbage: a third less time for memory that is there.
        .env("GOGC", "400")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        // The test's own is ended with the test.
        .process_group(0)
        .spawn()
        .expect("cannot start kube-apiserver");
    let group = Pid::from_child(&child);
    let mut line = String::new();
    let mut stdout = BufReader::new(child.stdout.take().expect("no stdout"));
    stdout
        .read_line(&mut line)
        .expect("kube-apiserver says nothing");
    let ready: Value = serde_json::from_str(&line).unwrap_or_default();
    let server = ready["server"]
        .as_str()
        .and_then(|it| it.rsplit(':').next());
    let port = server.and_then(|port| port.parse().ok());
    let port = port.unwrap_or_else(|| panic!("kube-apiserver does not start: {line}"));
    let serving = format!("{port} {}", group.as_raw_nonzero());
    std::fs::write(dir.join("serving"), serving).expect("cannot write the port");
    (port, group)
}
