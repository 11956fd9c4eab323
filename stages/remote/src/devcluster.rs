//! Stock devcluster as our child.

pub mod orphans;
pub(crate) mod text;

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use protocol::{Env, Exit, StageError, child};
use tokio::net::unix::pipe::Receiver;
use tokio::process::{Child, Command};

use protocol::program::say;
use text::Lines;

/// How long its stderr is read after its end.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// How to start it.
#[derive(Debug)]
pub struct Options {
    /// The compiled file.
    pub file: PathBuf,
    /// Directory to run in.
    pub root: Option<PathBuf>,
    /// Arguments that the user passes through.
    pub arguments: Vec<OsString>,
    /// No console: it ends by itself when a stage fails.
    pub oneshot: bool,
}

/// Something that devcluster did.
#[derive(Debug)]
pub enum Event {
    /// Every stage is up.
    Up,
    /// A stage failed; devcluster ends.
    Failing,
    /// It ended.
    Ended(ExitStatus),
}

/// The running devcluster.
#[derive(Debug)]
pub struct Devcluster {
    child: Child,
    stderr: Option<Lines<Receiver>>,
    asked_to_end: bool,
}

/// The executable: `$DEVCLUSTER`, else the one on `$PATH`.
pub fn find(env: &Env) -> Result<PathBuf, StageError> {
    let name = env.get("DEVCLUSTER").unwrap_or("devcluster");
    env.find_program(name).ok_or_else(|| {
        StageError::new(
            "remote.devcluster_missing",
            format!("no program `{name}` to run the stages"),
        )
        .hint("pipx install devcluster==1.3.2, or point $DEVCLUSTER at the one you have")
        .exit(Exit::Usage)
    })
}

/// Whether these arguments already choose how devcluster uses the terminal.
pub fn chooses_console(arguments: &[OsString]) -> bool {
    arguments.iter().any(|a| {
        ["-1", "--oneshot", "-q", "--quiet"]
            .iter()
            .any(|known| a == known)
    })
}

impl Devcluster {
    /// Starts it.
    pub fn start(program: &Path, options: &Options) -> Result<Devcluster, StageError> {
        let failed =
            |e: std::io::Error| StageError::io(format!("cannot start {}", program.display()), &e);
        let mut command = Command::new(program);
        command.arg("-c").arg(&options.file);
        if let Some(root) = &options.root {
            command.arg("-C").arg(root);
        }
        if options.oneshot {
            // Signals reach it through us alone: a second one would kill it and orphan its stages.
            command
                .arg("--oneshot")
                .stdin(Stdio::null())
                .process_group(0);
        }
        command.args(&options.arguments);
        if std::env::var_os("TERM").is_none() {
            // Its console dies of a terminal without a name.
            command.env("TERM", "xterm");
        }
        let words = match options.oneshot {
            true => Some(Words::new().map_err(failed)?),
            false => None,
        };
        if let Some(words) = &words {
            command.stderr(words.writer.try_clone().map_err(failed)?);
        }
        let child = child::spawn_in_place(&mut command).map_err(failed)?;
        let stderr = words.map(Words::lines).transpose().map_err(failed)?;
        Ok(Devcluster {
            child,
            stderr,
            asked_to_end: false,
        })
    }

    /// The next thing it does.
    pub async fn event(&mut self) -> Result<Event, StageError> {
        loop {
            let line = tokio::select! {
                biased;
                line = next_line(&mut self.stderr) => line,
                // Something else may hold its stderr for ever.
                _ = self.child.wait() => {
                    let rest = tokio::time::timeout(LAST_WORDS, next_line(&mut self.stderr));
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

    /// Asks it to end all stages and then itself. Only the first call asks: a second signal would kill it.
    pub fn terminate(&mut self) {
        if !std::mem::replace(&mut self.asked_to_end, true)
            && let Some(pid) = self
                .child
                .id()
                .and_then(|id| rustix::process::Pid::from_raw(id as i32))
        {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
    }

    /// Ends it at once; its stages notice by themselves.
    pub fn kill(&mut self) {
        self.asked_to_end = true;
        if let Err(e) = self.child.start_kill() {
            say(&format!("cannot kill devcluster: {e}"));
        }
    }
}

/// The pipe for devcluster's stderr. It dies of a pipe that nobody reads, and orphans its stages: so it holds the reading
/// end open itself, should we be killed.
struct Words {
    reader: OwnedFd,
    writer: OwnedFd,
    /// Inherited by the child.
    _kept_open: OwnedFd,
}

impl Words {
    fn new() -> std::io::Result<Words> {
        let (reader, writer) = std::io::pipe()?;
        let (reader, writer) = (OwnedFd::from(reader), OwnedFd::from(writer));
        let kept_open = rustix::io::dup(&reader)?;
        Ok(Words {
            reader,
            writer,
            _kept_open: kept_open,
        })
    }

    /// Closes our copies of what the child has, and reads.
    fn lines(self) -> std::io::Result<Lines<Receiver>> {
        Ok(Lines::new(Receiver::from_owned_fd(self.reader)?))
    }
}

async fn next_line(stderr: &mut Option<Lines<Receiver>>) -> Option<String> {
    stderr.as_mut()?.next().await
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[tokio::test]
    async fn it_is_heard_after_bytes_that_are_no_text() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("devcluster");
        let body = r"printf '\377\n' >&2; echo devcluster is up >&2";
        std::fs::write(&program, format!("#!/bin/sh\n{body}\n")).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let options = Options {
            file: dir.path().join("devcluster.yaml"),
            root: None,
            arguments: Vec::new(),
            oneshot: true,
        };
        let mut devcluster = Devcluster::start(&program, &options).unwrap();
        assert!(matches!(devcluster.event().await.unwrap(), Event::Up));
        assert!(matches!(devcluster.event().await.unwrap(), Event::Ended(_)));
    }
}
