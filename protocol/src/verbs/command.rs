//! `-- command…`: runs a command while the stage is ready.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::process::{Child, Command};

use crate::call::{Events, StdinMode};
use crate::child::spawn_inheriting;
use crate::error::StageError;
use crate::message::Message;
use crate::rundir::Phase;
use crate::runtime::Invocation;
use crate::shutdown::Reason;

/// How long a command may take to end after SIGTERM. The stage stays up until then.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// Resolves when the stage has to stop: a shutdown is requested and no command runs. The end of the command requests a
/// shutdown.
pub(crate) async fn until_end(
    invocation: &Invocation,
    stdout: Option<OwnedFd>,
) -> Result<(), StageError> {
    let mut child = None;
    if !invocation.call.command.is_empty() {
        let mut readiness = invocation.reporter.readiness();
        tokio::select! {
            ready = readiness.wait_for(|ready| *ready) => drop(ready),
            () = invocation.shutdown.requested() => {}
        }
        if invocation.shutdown.reason().is_none() {
            child = Some(start(invocation, stdout)?);
        }
    }
    let ended = async {
        match &mut child {
            Some(child) => child.wait().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        status = ended => {
            let status = status.map_err(|e| StageError::io("cannot wait for the command", &e))?;
            invocation.shutdown.request(Reason::CommandEnded(exit_code(status)));
            announce(invocation);
        }
        () = invocation.shutdown.requested() => {
            announce(invocation);
            if let Some(child) = child {
                end(invocation, child).await;
            }
        }
    }
    Ok(())
}

fn announce(invocation: &Invocation) {
    let reason = invocation
        .shutdown
        .reason()
        .map_or("shutdown", Reason::as_str)
        .to_owned();
    invocation.reporter.enter(Phase::Stopping);
    invocation.reporter.send(&Message::Stopping {
        stage: invocation.call.instance.clone(),
        reason,
    });
}

fn start(invocation: &Invocation, stdout: Option<OwnedFd>) -> Result<Child, StageError> {
    let command: &[OsString] = &invocation.call.command;
    let shown = command
        .iter()
        .map(|a| a.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ");
    invocation.reporter.say(&format!("running {shown}"));
    // The command must not read the pipe of the upstream stage, nor write between protocol lines.
    let stdin = if invocation.call.stdin == StdinMode::None {
        Stdio::inherit()
    } else {
        Stdio::null()
    };
    let stdout = stdout
        .filter(|_| invocation.reporter.events == Events::None)
        .map_or_else(Stdio::inherit, Stdio::from);
    let mut program = Command::new(&command[0]);
    program
        .args(&command[1..])
        .env("DEVCLUSTER_RUN_DIR", &invocation.call.run_dir)
        .stdin(stdin)
        .stdout(stdout)
        .kill_on_drop(true);
    if has_own_group() {
        program.process_group(0);
    }
    spawn_inheriting(&mut program).map_err(|e| {
        StageError::io(format!("cannot run {shown}"), &e).hint(
            "after `--` write a program and its arguments; for shell syntax use `-- sh -c '…'`",
        )
    })
}

/// Away from a terminal the command leads a process group, so that its children end with it. At a terminal it stays in the
/// foreground group, or it could not read from the terminal.
fn has_own_group() -> bool {
    !std::io::stdin().is_terminal()
}

fn kill(pid: Option<Pid>, signal: Signal) {
    let Some(pid) = pid else { return };
    // It may have ended already.
    let _ = match has_own_group() {
        true => kill_process_group(pid, signal),
        false => kill_process(pid, signal),
    };
}

async fn end(invocation: &Invocation, mut child: Child) {
    let pid = child.id().and_then(|id| Pid::from_raw(id as i32));
    kill(pid, Signal::TERM);
    let waited = async {
        tokio::select! {
            _ = child.wait() => true,
            () = invocation.shutdown.at_once() => false,
        }
    };
    if !tokio::time::timeout(STOP_TIMEOUT, waited)
        .await
        .unwrap_or(false)
    {
        invocation
            .reporter
            .say("the command did not end on SIGTERM; killing it");
        kill(pid, Signal::KILL);
        drop(child.wait().await);
    }
}

/// The exit code as a shell reports it.
fn exit_code(status: ExitStatus) -> u8 {
    let code = status
        .code()
        .or_else(|| status.signal().map(|s| 128 + s))
        .unwrap_or(1);
    u8::try_from(code).unwrap_or(1)
}
