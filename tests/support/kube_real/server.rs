//! The process: one for all tests of a program.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::PoisonError;

use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::{Mutex, OnceCell};

use super::{LIMITED, STAGE};
use crate::build_dir;

pub(super) struct Server {
    pub(super) files: PathBuf,
    pub(super) port: u16,
    pub(super) use_: Mutex<()>,
    /// What was there before any test.
    pub(super) baseline: OnceCell<BTreeSet<String>>,
    dir: TempDir,
    /// It ends when its stdin is closed, which is when the test program ends, however that happens.
    child: std::sync::Mutex<Child>,
}

impl Server {
    /// `None`: nobody has built one.
    pub(super) fn start() -> Option<Server> {
        let files = build_dir().join("kube");
        if !program(&files).exists() {
            return None;
        }
        let dir = tempfile::tempdir().expect("no temporary directory");
        let lines = format!("{STAGE},{STAGE},1,\"system:masters\"\n{LIMITED},{LIMITED},2\n");
        std::fs::write(dir.path().join("tokens.csv"), lines).expect("cannot write the tokens");
        let (child, port) = spawn(&files, dir.path(), 0);
        Some(Server {
            files,
            port,
            use_: Mutex::new(()),
            baseline: OnceCell::new(),
            dir,
            child: std::sync::Mutex::new(child),
        })
    }

    pub(super) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(super) fn kill(&self) {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        child.kill().expect("cannot kill kube-apiserver");
        child.wait().expect("kube-apiserver stays");
    }

    /// At the same address, with what it had.
    pub(super) fn revive(&self) {
        let (child, _) = spawn(&self.files, self.dir(), self.port);
        *self.child.lock().unwrap_or_else(PoisonError::into_inner) = child;
    }
}

fn program(files: &Path) -> PathBuf {
    files.join("kube-apiserver")
}

/// The process once it serves, and its port.
fn spawn(files: &Path, dir: &Path, port: u16) -> (Child, u16) {
    let log = std::fs::File::create(dir.join("log")).expect("cannot make a log");
    let mut child = Command::new(program(files))
        .arg("--dir")
        .arg(dir)
        .arg("--tokens")
        .arg(dir.join("tokens.csv"))
        .arg(format!("--port={port}"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .expect("cannot start kube-apiserver");
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
    (child, port)
}
