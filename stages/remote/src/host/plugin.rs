//! A running plugin.

use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use protocol::frame::{self, Frame};
use protocol::message::{self, Command};
use protocol::{Context, StageError, child};
use tokio::io::{AsyncRead, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use super::wire::Wire;
use super::{Host, directory};
use crate::call::{EXIT_TIMEOUT, Group, forward_lines};
use crate::codes;

/// The time that a plugin has between `shutdown` and SIGTERM. The runtime's grace period ends soon after.
pub(super) const SHUTDOWN_TIMEOUT: Duration = Duration::from_millis(250);

pub(super) struct Plugin<'a> {
    cx: &'a Context<Host>,
    program: String,
    child: Child,
    group: Group,
    status: Option<ExitStatus>,
    /// Lines for its stdin. Dropping it closes stdin.
    stdin: Option<mpsc::UnboundedSender<Vec<u8>>>,
    /// Frames from its stdout; `None` after its end.
    stdout: Option<mpsc::Receiver<Frame>>,
    /// The task that reads its stderr.
    people: JoinSet<()>,
    _pipes: JoinSet<()>,
    wire: Wire<'a>,
}

impl<'a> Plugin<'a> {
    pub(super) fn start(cx: &'a Context<Host>, program: &Path) -> Result<Plugin<'a>, StageError> {
        let shown = program.display().to_string();
        let failed = |e: std::io::Error| {
            StageError::io(format!("cannot start {shown}"), &e)
                .hint("a script needs a first line such as #!/usr/bin/env python3, and chmod +x")
        };
        let dir = protocol::rundir::RunDir::open(&directory(cx))?;
        let mut command = tokio::process::Command::new(program);
        command
            .args(["run", "--stdin", "control", "--name", &cx.instance])
            .arg("--run-dir")
            .arg(dir.path());
        let mut child = child::spawn_piped(&mut command).map_err(failed)?;
        let group = Group::led_by(&child);
        let (Some(stdin), Some(stdout), Some(stderr)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(StageError::internal("a plugin without pipes"));
        };
        let (mut pipes, mut people) = (JoinSet::new(), JoinSet::new());
        let (to_plugin, lines) = mpsc::unbounded_channel();
        pipes.spawn(write_lines(stdin, lines));
        let (sender, from_plugin) = mpsc::channel(16);
        pipes.spawn(read_frames(stdout, sender));
        let log = cx.clone();
        people.spawn(forward_lines(stderr, move |line| log.info(line)));
        Ok(Plugin {
            cx,
            child,
            group,
            status: None,
            stdin: Some(to_plugin),
            stdout: Some(from_plugin),
            people,
            _pipes: pipes,
            wire: Wire::new(cx, shown.clone()),
            program: shown,
        })
    }

    pub(super) fn send(&self, command: &Command) {
        if let (Some(stdin), Ok(line)) = (&self.stdin, message::encode(command)) {
            // The end of a plugin that closed its stdin is detected elsewhere.
            drop(stdin.send(line));
        }
    }

    /// Passes on its messages until a shutdown is requested (`Ok`) or it fails.
    pub(super) async fn relay(&mut self) -> Result<(), StageError> {
        let cx = self.cx;
        let mut patience = None;
        loop {
            let over = async {
                match patience {
                    Some(deadline) => sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = cx.shutdown.cancelled() => return Ok(()),
                frame = next(&mut self.stdout) => self.wire.receive(frame).await?,
                status = self.child.wait() => {
                    self.status = status.ok();
                    break;
                }
                () = over => break,
            }
            // A plugin that failed or closed its stdout has to end.
            if self.wire.failed.is_some() || self.stdout.is_none() {
                patience.get_or_insert_with(|| Instant::now() + SHUTDOWN_TIMEOUT);
            }
        }
        self.wire.ending = true;
        if self.status.is_some() {
            self.drain().await;
        }
        let how = self.status.map(|s| s.to_string());
        let how = how.unwrap_or_else(|| "it closed its stdout".to_owned());
        Err(self
            .wire
            .failed
            .take()
            .unwrap_or_else(|| ended(&self.program, &how)))
    }

    /// Ends it: `shutdown` and the end of stdin, then SIGTERM, then SIGKILL. Reads both its pipes meanwhile, since a closed
    /// pipe would kill it. Returns whether it ended with success.
    pub(super) async fn end(mut self) -> bool {
        self.wire.ending = true;
        self.send(&Command::Shutdown);
        self.stdin = None;
        self.wait(SHUTDOWN_TIMEOUT).await;
        if self.status.is_none() {
            self.group.terminate();
            self.wait(SHUTDOWN_TIMEOUT).await;
        }
        self.drain().await;
        self.status.is_some_and(|s| s.success())
    }

    /// Waits for its end and reads its messages meanwhile.
    async fn wait(&mut self, patience: Duration) {
        let deadline = Instant::now() + patience;
        while self.status.is_none() {
            tokio::select! {
                frame = next(&mut self.stdout) => self.receive(frame).await,
                status = self.child.wait() => self.status = status.ok(),
                () = sleep_until(deadline) => return,
            }
        }
    }

    /// Reads its remaining output, and ends the processes that it started, which may keep the pipes open.
    async fn drain(&mut self) {
        let rest = async {
            while self.stdout.is_some() {
                let frame = next(&mut self.stdout).await;
                // Errors in messages have no effect any more.
                drop(self.wire.receive(frame).await);
            }
            self.people.join_next().await;
        };
        let (_, ()) = tokio::join!(timeout(EXIT_TIMEOUT, rest), self.group.end(EXIT_TIMEOUT));
    }

    async fn receive(&mut self, frame: Frame) {
        if let Err(error) = self.wire.receive(frame).await {
            self.cx.debug(error.message);
        }
    }
}

/// The next frame. Never resolves after the end.
async fn next(stdout: &mut Option<mpsc::Receiver<Frame>>) -> Frame {
    let Some(frames) = stdout else {
        return std::future::pending().await;
    };
    match frames.recv().await {
        Some(frame @ (Frame::Line(_) | Frame::TooLong(_))) => frame,
        end => {
            *stdout = None;
            end.unwrap_or(Frame::End(0))
        }
    }
}

fn ended(program: &str, how: &str) -> StageError {
    StageError::new(
        codes::PLUGIN_ENDED,
        format!("{program} ended without a shutdown request ({how})"),
    )
}

async fn write_lines(mut stdin: ChildStdin, mut lines: mpsc::UnboundedReceiver<Vec<u8>>) {
    while let Some(line) = lines.recv().await {
        if stdin.write_all(&line).await.is_err() {
            return;
        }
    }
}

async fn read_frames(stdout: impl AsyncRead + Unpin, frames: mpsc::Sender<Frame>) {
    let mut stdout = BufReader::new(stdout);
    while let Ok(frame) = frame::read(&mut stdout).await {
        let end = matches!(frame, Frame::End(_));
        if frames.send(frame).await.is_err() || end {
            return;
        }
    }
}
