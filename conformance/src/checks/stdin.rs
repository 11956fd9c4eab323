//! Checks that a stage works with any stdin.

use std::future::pending;
use std::os::fd::OwnedFd;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

use super::prelude::*;
use super::streams::close_in_child;

/// How long an idle stage is observed, and how much processor time it may use.
const IDLE: Duration = Duration::from_millis(300);
const BUSY: Duration = Duration::from_millis(100);

checks! {
    "stdin.null" => |s| without_host(s, false),
    "stdin.closed" => |s| without_host(s, true),
    "stdin.silent" => silent,
    "stdin.terminal" => terminal,
}

/// Runs a full stage as devcluster does, a plugin as a host does.
fn run(scene: &Scene) -> Result<Command> {
    match scene.subject.is_stage() {
        true => scene.configured("run", &["--events", "all"]),
        false => Ok(scene.verb("run", &["--stdin", "control"])),
    }
}

/// Without a host, a full stage in a devcluster.yaml works, and a plugin ends.
async fn without_host(scene: Scene<'_>, is_closed: bool) -> Verdict {
    let mut command = run(&scene)?;
    if is_closed {
        close_in_child(&mut command, 0);
    }
    let mut running = scene.spawn(command)?;
    if scene.subject.is_stage() {
        running.ready().await?;
        let window = Duration::from_millis(200);
        running.stays(window, "it does not stay").await?;
        return running.stop().await?.exits(0, "asked to stop");
    }
    let ended = running.end().await?;
    only_messages(&running)?;
    match is_closed {
        // With a closed stdin it may report an error.
        true => ended.exits_somehow("without a stdin"),
        false => ended.exits(0, "without a host"),
    }
}

async fn silent(scene: Scene<'_>) -> Verdict {
    let mut running = scene.spawn_hosted(run(&scene)?)?;
    match scene.subject.is_stage() {
        true => running.ready().await?,
        false => running.next("hello").await?,
    };
    let computed = |pid| machine::work(&[pid]).computed;
    let before = computed(running.pid());
    // On a busy machine, even a busy loop takes a while to use this much processor time.
    let mut busy = scene.program("sh");
    busy.args(["-c", "while :; do :; done"]);
    let busy = Running::spawn(busy)?;
    within(IDLE, || vec![busy.pid()], pending::<()>()).await;
    drop(busy);
    let used = computed(running.pid()).saturating_sub(before);
    ensure!(
        used < BUSY,
        "it used the processor for {used:?} of {IDLE:?} while idle"
    );
    let moment = Duration::from_millis(1);
    running.stays(moment, "it does not wait").await?;
    running.end_by(Signal::TERM).await?;
    scene.no_process_is_left().await
}

async fn terminal(scene: Scene<'_>) -> Verdict {
    let (ours, theirs) = open_terminal()?;
    let mut command = run(&scene)?;
    command.stdin(theirs);
    let mut running = scene.spawn(command)?;
    if !scene.subject.is_stage() {
        running.next("hello").await?;
        rustix::io::write(&ours, format!("{}\n", scene.start()).as_bytes())?;
    }
    running.ready().await?;
    running.end_by(Signal::TERM).await?;
    scene.no_process_is_left().await
}

/// A raw terminal, which accepts long lines without echo.
fn open_terminal() -> Result<(OwnedFd, OwnedFd)> {
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
    grantpt(&ours)?;
    unlockpt(&ours)?;
    let name = ptsname(&ours, Vec::new())?;
    let theirs = std::fs::File::options()
        .read(true)
        .write(true)
        .open(name.to_string_lossy().as_ref())?;
    let mut settings = tcgetattr(&theirs)?;
    settings.make_raw();
    tcsetattr(&theirs, OptionalActions::Now, &settings)?;
    Ok((ours, theirs.into()))
}
