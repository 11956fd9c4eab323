//! `-- command…`: what is run while everything is held up.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::process::{Child, Command};

use crate::call::{Events, Stdin};
use crate::child::spawn_in_place;
use crate::error::StageError;
use crate::message::Message;
use crate::rundir::Phase;
use crate::runtime::Session;
use crate::shutdown::Reason;

/// How long a command may take to end after SIGTERM. Nothing that it uses is taken away meanwhile.
const PATIENCE: Duration = Duration::from_secs(10);

/// Resolves when it is time for the stage to stop: the end was asked for and no command runs any more. With a command, its
/// end asks for the end.
pub(crate) async fn until_end(
    session: &Session,
    stdout: Option<OwnedFd>,
) -> Result<(), StageError> {
    let mut child = None;
    if !session.call.command.is_empty() {
        let mut readiness = session.hub.readiness();
        tokio::select! {
            ready = readiness.wait_for(|ready| *ready) => drop(ready),
            () = session.shutdown.requested() => {}
        }
        if session.shutdown.reason().is_none() {
            child = Some(start(session, stdout)?);
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
            session.shutdown.request(Reason::CommandEnded(exit_code(status)));
            announce(session);
        }
        () = session.shutdown.requested() => {
            announce(session);
            if let Some(child) = child {
                end(session, child).await;
            }
        }
    }
    Ok(())
}

fn announce(session: &Session) {
    let reason = session
        .shutdown
        .reason()
        .map_or("shutdown", Reason::as_str)
        .to_owned();
    session.hub.enter(Phase::Stopping);
    session.hub.send(&Message::Stopping {
        stage: session.call.instance.clone(),
        reason,
    });
}

fn start(session: &Session, stdout: Option<OwnedFd>) -> Result<Child, StageError> {
    let command: &[OsString] = &session.call.command;
    let shown = command
        .iter()
        .map(|a| a.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ");
    session.hub.say(&format!("running {shown}"));
    // A pipe from the stage before is not the command's to read, nor may it write between our lines.
    let stdin = if session.call.stdin == Stdin::None {
        Stdio::inherit()
    } else {
        Stdio::null()
    };
    let stdout = stdout
        .filter(|_| session.hub.events == Events::None)
        .map_or_else(Stdio::inherit, Stdio::from);
    let mut program = Command::new(&command[0]);
    program
        .args(&command[1..])
        .env("DEVCLUSTER_RUN_DIR", &session.call.run_dir)
        .stdin(stdin)
        .stdout(stdout)
        .kill_on_drop(true);
    if has_own_group() {
        program.process_group(0);
    }
    spawn_in_place(&mut program).map_err(|e| {
        StageError::io(format!("cannot run {shown}"), &e)
            .hint("what comes after `--` is a program and its arguments; for shell syntax use `-- sh -c '…'`")
    })
}

/// What a command starts ends with it. At a terminal it stays in our group, or it could not read what is typed.
fn has_own_group() -> bool {
    !std::io::stdin().is_terminal()
}

fn kill(pid: Option<Pid>, signal: Signal) {
    let Some(pid) = pid else { return };
    // It may be gone by itself.
    let _ = match has_own_group() {
        true => kill_process_group(pid, signal),
        false => kill_process(pid, signal),
    };
}

async fn end(session: &Session, mut child: Child) {
    let pid = child.id().and_then(|id| Pid::from_raw(id as i32));
    kill(pid, Signal::TERM);
    let waited = async {
        tokio::select! {
            _ = child.wait() => true,
            () = session.shutdown.at_once() => false,
        }
    };
    if !tokio::time::timeout(PATIENCE, waited)
        .await
        .unwrap_or(false)
    {
        session
            .hub
            .say("the command did not end on SIGTERM; killing it");
        kill(pid, Signal::KILL);
        drop(child.wait().await);
    }
}

/// As a shell says it.
fn exit_code(status: ExitStatus) -> u8 {
    let code = status
        .code()
        .or_else(|| status.signal().map(|s| 128 + s))
        .unwrap_or(1);
    u8::try_from(code).unwrap_or(1)
}
