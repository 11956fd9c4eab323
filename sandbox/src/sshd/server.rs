//! The listening process, its log, and its descendants.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use protocol::child::{self, SupervisedChild};
use rustix::process::Pid;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::ChildStderr;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::output_of;

/// How long sshd may take to start: much less than a second, unless the machine is busy.
const START: Duration = Duration::from_secs(20);

#[derive(Debug)]
pub(super) struct Server {
    process: SupervisedChild,
    /// The lines of its log; closed at its end.
    log: watch::Receiver<Vec<String>>,
    _reader: JoinSet<()>,
}

/// Creates the empty directory that root's sshd needs, and that usually its service creates.
fn make_privilege_separation_directory(error: &str) -> Result<bool> {
    let Some((_, rest)) = error.split_once("Missing privilege separation directory: ") else {
        return Ok(false);
    };
    let path = rest.lines().next().unwrap_or_default().trim();
    ensure!(
        rustix::process::geteuid().is_root(),
        "sshd needs the directory {path}"
    );
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(path)
        .with_context(|| format!("cannot create {path}"))?;
    Ok(true)
}

impl Server {
    /// Starts sshd and waits until it listens.
    pub(super) async fn launch(program: &Path, dir: &Path, port: u16) -> Result<Server> {
        match Server::spawn(program, dir, port).await {
            Err(error) if make_privilege_separation_directory(&format!("{error:#}"))? => {
                Server::spawn(program, dir, port).await
            }
            result => result,
        }
    }

    pub(super) fn log(&self) -> String {
        self.log.borrow().join("\n")
    }

    pub(super) fn descendants(&self) -> Result<Vec<Pid>> {
        let id = self.process.child.id();
        id.map_or_else(|| Ok(Vec::new()), descendants)
    }

    pub(super) async fn kill(&mut self) -> Result<()> {
        Ok(self.process.child.kill().await?)
    }

    async fn spawn(program: &Path, dir: &Path, port: u16) -> Result<Server> {
        let config = dir.join("sshd_config");
        let arguments = [
            "-D".as_ref(),
            "-e".as_ref(),
            "-f".as_ref(),
            config.as_os_str(),
        ];
        let mut process = child::spawn(program, arguments)
            .with_context(|| format!("cannot run {}", program.display()))?;
        let stderr = process.child.stderr.take().context("no stderr")?;
        let (lines, log) = watch::channel(Vec::new());
        let mut reader = JoinSet::new();
        reader.spawn(read_log(stderr, lines));

        let mut server = Server {
            process,
            log,
            _reader: reader,
        };
        let up = format!("Server listening on 127.0.0.1 port {port}.");
        let listening = server.log.wait_for(|lines| lines.contains(&up));
        if !matches!(timeout(START, listening).await, Ok(Ok(_))) {
            let log = server.log();
            bail!("{} did not start: it wrote:\n{log}", program.display());
        }
        Ok(server)
    }
}

async fn read_log(stderr: ChildStderr, log: watch::Sender<Vec<String>>) {
    let mut lines = BufReader::new(stderr).split(b'\n');
    while let Ok(Some(line)) = lines.next_segment().await {
        let line = String::from_utf8_lossy(&line).trim_end().to_owned();
        log.send_modify(|lines| lines.push(line));
    }
}

/// All processes below `ancestor`.
fn descendants(ancestor: u32) -> Result<Vec<Pid>> {
    // Each line is a process and its parent.
    let table = match fs::read_dir("/proc") {
        Ok(entries) => entries
            .flatten()
            .filter_map(|e| parse_stat(&e.path()))
            .collect(),
        Err(_) => output_of(Command::new("ps").args(["-A", "-o", "pid=,ppid="]))?,
    };
    let numbers = |line: &str| {
        let mut numbers = line.split_whitespace().map(|n| n.parse::<u32>().ok());
        Some((numbers.next()??, numbers.next()??))
    };
    let parents: Vec<(u32, u32)> = table.lines().filter_map(numbers).collect();
    let mut found = vec![ancestor];
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        let children = parents.iter().filter(|(_, p)| *p == parent);
        found.extend(children.map(|(pid, _)| *pid));
        next += 1;
    }
    let pids = found[1..].iter().map(|pid| Pid::from_raw(*pid as i32));
    Ok(pids.flatten().collect())
}

/// Parses `pid (name) state ppid …`; the name may contain any character.
fn parse_stat(process: &Path) -> Option<String> {
    let stat = fs::read_to_string(process.join("stat")).ok()?;
    let (pid, after_name) = (stat.split(' ').next()?, stat.rsplit_once(')')?.1);
    let parent = after_name.split_whitespace().nth(1)?;
    Some(format!("{pid} {parent}\n"))
}
