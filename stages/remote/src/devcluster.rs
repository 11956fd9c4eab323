//! Runs stock devcluster.

pub(crate) mod orphans;
pub(crate) mod restarts;

use std::ffi::OsString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use protocol::kinds::{RELEASE, RELEASE_VARIABLE};
use protocol::program::say;
use protocol::{Env, KEEP_VARIABLE, StageError, child};
use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::AsyncWriteExt;
use tokio::net::unix::pipe::{Receiver, Sender};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;

use crate::codes;
use crate::lines::Lines;

/// How long to read its stderr after it ended.
const STDERR_TIMEOUT: Duration = Duration::from_millis(200);

/// How to start devcluster.
#[derive(Debug, PartialEq)]
pub(crate) struct Options {
    /// The working directory.
    pub(crate) root: Option<PathBuf>,
    /// Arguments of the user for devcluster.
    pub(crate) arguments: Vec<OsString>,
    /// Without a console: devcluster ends when a stage fails, and nothing stays for running tasks.
    pub(crate) oneshot: bool,
    /// The file uses `$DOCKER_LOCALHOST`, which devcluster guesses; it dies if it cannot, without a default route.
    pub(crate) guess_host: bool,
}

/// An event of devcluster.
#[derive(Debug)]
pub(crate) enum Event {
    /// Every stage is up.
    Up,
    /// A stage failed; devcluster ends.
    Failing,
    /// devcluster ended.
    Ended(ExitStatus),
}

/// The running devcluster.
#[derive(Debug)]
pub(crate) struct Devcluster {
    child: Child,
    /// Where it reads its file from, until it has it.
    file: Option<Sender>,
    writes: JoinSet<()>,
    stderr: Option<Lines<Receiver>>,
    asked_to_end: bool,
}

/// The executable: `$DEVCLUSTER`, else the one on `$PATH`.
pub(crate) fn find(env: &Env) -> Result<PathBuf, StageError> {
    let name = env.get("DEVCLUSTER").unwrap_or("devcluster");
    env.find_program(name).ok_or_else(|| {
        let message = format!("the program `{name}`, which runs the stages, is not on $PATH");
        StageError::new(codes::DEVCLUSTER_MISSING, message)
    })
}

/// Whether these arguments already choose how devcluster uses the terminal.
pub(crate) fn chooses_console(arguments: &[OsString]) -> bool {
    is_oneshot(arguments) || arguments.iter().any(|a| a == "-q" || a == "--quiet")
}

/// Whether these arguments make devcluster end when a stage fails.
pub(crate) fn is_oneshot(arguments: &[OsString]) -> bool {
    arguments.iter().any(|a| a == "-1" || a == "--oneshot")
}

impl Options {
    /// Its whole command line.
    pub(crate) fn words(&self, file: &Path) -> Vec<OsString> {
        let mut words = Vec::new();
        words.extend((!self.guess_host).then(|| "--no-guess-host".into()));
        words.extend(["-c".into(), file.into()]);
        if let Some(root) = &self.root {
            words.extend(["-C".into(), root.into()]);
        }
        words.extend(self.oneshot.then(|| "--oneshot".into()));
        words.extend(self.arguments.iter().cloned());
        words
    }
}

impl Devcluster {
    /// Starts it. It waits for its file, so that Python can start while the file is compiled.
    pub(crate) fn start(program: &Path, options: &Options) -> Result<Devcluster, StageError> {
        let failed =
            |e: std::io::Error| StageError::io(format!("cannot start {}", program.display()), &e);
        let (reader, writer) = std::io::pipe().map_err(failed)?;
        let file = inherited(&reader).map_err(|e| failed(e.into()))?;
        let mut command = Command::new(program);
        let path = format!("/dev/fd/{}", file.as_raw_fd());
        command.args(options.words(Path::new(&path)));
        command.env(RELEASE_VARIABLE, RELEASE);
        if std::env::var_os("TERM").is_none() {
            // Its console crashes when TERM is not set.
            command.env("TERM", "xterm");
        }
        let (mut stderr, mut _kept_open) = (None, None);
        if options.oneshot {
            command.env(KEEP_VARIABLE, "0");
            // Only this process sends it signals: a second one would kill it and orphan its stages.
            command.stdin(Stdio::null()).process_group(0);
            // It inherits the reading end of the pipe too. If this process is killed, a closed pipe would crash it and orphan
            // its stages.
            let (reader, writer) = std::io::pipe().map_err(failed)?;
            _kept_open = Some(inherited(&reader).map_err(|e| failed(e.into()))?);
            command.stderr(writer);
            stderr = Some(Receiver::from_owned_fd(reader.into()).map_err(failed)?);
        }
        Ok(Devcluster {
            child: child::spawn_inheriting(&mut command).map_err(failed)?,
            file: Some(Sender::from_owned_fd(writer.into()).map_err(failed)?),
            writes: JoinSet::new(),
            stderr: stderr.map(Lines::new),
            asked_to_end: false,
        })
    }

    /// Passes it the compiled file.
    pub(crate) fn run(&mut self, compiled: &str) {
        if let Some(mut file) = self.file.take() {
            let text = compiled.to_owned();
            self.writes.spawn(async move {
                // If it has ended, its status says more.
                let _ = file.write_all(text.as_bytes()).await;
            });
        }
    }

    /// The next event.
    pub(crate) async fn event(&mut self) -> Result<Event, StageError> {
        loop {
            let line = tokio::select! {
                biased;
                line = next_line(&mut self.stderr) => line,
                // Another process may keep its stderr open.
                _ = self.child.wait() => {
                    let rest = tokio::time::timeout(STDERR_TIMEOUT, next_line(&mut self.stderr));
                    rest.await.ok().flatten()
                }
            };
            match line.as_deref() {
                Some("devcluster is up") => return Ok(Event::Up),
                Some("devcluster is failing") if !self.asked_to_end => return Ok(Event::Failing),
                Some("devcluster is failing") => {}
                Some(other) => say(&format!("devcluster: {other}")),
                None => break,
            }
        }
        let status = self.child.wait().await;
        status
            .map(Event::Ended)
            .map_err(|e| StageError::io("cannot wait for devcluster", &e))
    }

    /// Asks it to end all stages and exit. Only the first call has an effect: a second signal would kill it.
    pub(crate) fn terminate(&mut self) {
        let pid = self.child.id().and_then(|id| Pid::from_raw(id as i32));
        if let (false, Some(pid)) = (self.asked_to_end, pid) {
            let _ = kill_process(pid, Signal::TERM);
        }
        self.asked_to_end = true;
    }

    /// Kills it. Its stages notice and end.
    pub(crate) fn kill(&mut self) {
        self.asked_to_end = true;
        if let Err(e) = self.child.start_kill() {
            say(&format!("cannot kill devcluster: {e}"));
        }
    }
}

/// A copy that a child inherits, under a number that no wrapper script uses itself.
fn inherited(file: impl AsFd) -> rustix::io::Result<OwnedFd> {
    let copy = fcntl_dupfd_cloexec(file, 64)?;
    fcntl_setfd(&copy, FdFlags::empty())?;
    Ok(copy)
}

impl Drop for Devcluster {
    fn drop(&mut self) {
        if self.file.is_some() {
            // An end of its file would be an error that it prints.
            let _ = self.child.start_kill();
        }
    }
}

async fn next_line(stderr: &mut Option<Lines<Receiver>>) -> Option<String> {
    stderr.as_mut()?.next().await
}
