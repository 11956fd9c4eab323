//! Whatever stdin is, a stage works and stops.

use std::future::pending;
use std::os::fd::OwnedFd;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

use super::prelude::*;
use super::streams::close_in_child;

/// How long an idle stage is looked at, and how much of that it may compute.
const IDLE: Duration = Duration::from_millis(300);
const BUSY: Duration = Duration::from_millis(100);

checks! {
    "stdin.null" => |s| without_host(s, false),
    "stdin.closed" => |s| without_host(s, true),
    "stdin.silent" => silent,
    "stdin.terminal" => terminal,
}

/// A full stage as it is listed, a plugin as a host calls it.
fn run(scene: &Scene) -> Result<Command> {
    match scene.subject.is_stage() {
        true => scene.configured("run", &["--events", "all"]),
        false => Ok(scene.verb("run", &["--stdin", "control"])),
    }
}

/// A full stage listed in a devcluster.yaml has nobody to speak to it; a plugin without a host has no reason to stay.
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
        return running.stop().await?.exits(0, "told to stop");
    }
    let ended = running.end().await?;
    only_messages(&running)?;
    match is_closed {
        // Without a stdin at all it may say that something is wrong.
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
    // On a busy machine it takes a while until one that does nothing else has computed for so long.
    let mut busy = scene.program("sh");
    busy.args(["-c", "while :; do :; done"]);
    let busy = Running::spawn(busy)?;
    within(IDLE, || vec![busy.pid()], pending::<()>()).await;
    drop(busy);
    let used = computed(running.pid()).saturating_sub(before);
    ensure!(
        used < BUSY,
        "it computed for {used:?} of {IDLE:?} in which nothing happened"
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

/// A terminal that takes long lines: not edited, not echoed.
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
