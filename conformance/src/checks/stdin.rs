//! Whatever stdin is, a stage works and stops.

use std::future::pending;
use std::os::fd::OwnedFd;
use std::time::Duration;

use anyhow::{Result, ensure};
use futures::FutureExt;
use rustix::process::Signal;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};
use tokio::process::Command;

use super::Named;
use super::stdout::only_messages;
use super::streams::close_in_child;
use crate::harness::{Running, SOON, machine, within};
use crate::scene::Scene;
use crate::verdict::Verdict;

/// How long an idle stage is looked at, and how much of that it may compute.
const IDLE: Duration = Duration::from_millis(300);
const BUSY: Duration = Duration::from_millis(100);

pub(super) const CHECKS: &[Named] = &[
    ("stdin.null", |s| null(s).boxed_local()),
    ("stdin.closed", |s| closed(s).boxed_local()),
    ("stdin.silent", |s| silent(s).boxed_local()),
    ("stdin.terminal", |s| terminal(s).boxed_local()),
];

/// A full stage as it is listed, a plugin as a host calls it.
fn run(scene: &Scene) -> Result<Command> {
    match scene.subject.is_stage() {
        true => scene.configured("run", &["--events", "all"]),
        false => Ok(scene.verb("run", &["--stdin", "control"])),
    }
}

/// A full stage listed in a devcluster.yaml has nobody to speak to it; a plugin without a host has no reason to stay.
async fn without_host(scene: &Scene<'_>, is_closed: bool) -> Verdict {
    let mut command = run(scene)?;
    if is_closed {
        close_in_child(&mut command, 0);
    }
    let mut running = scene.spawn(command)?;
    if !scene.subject.is_stage() {
        let status = running.end().await?;
        only_messages(&running)?;
        // Without a stdin at all it may say that something is wrong.
        let good = status.success() || (is_closed && status.code().is_some());
        ensure!(
            good,
            "without a host it ended with {status}{}",
            running.state()
        );
        return Ok(());
    }
    running.ready().await?;
    let stays = running.stays(Duration::from_millis(200)).await;
    ensure!(stays, "it does not stay{}", running.state());
    let status = running.stop().await?;
    ensure!(status.success(), "{status}{}", running.state());
    Ok(())
}

async fn null(scene: Scene<'_>) -> Verdict {
    without_host(&scene, false).await
}

async fn closed(scene: Scene<'_>) -> Verdict {
    without_host(&scene, true).await
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
    let stays = running.stays(Duration::from_millis(1)).await;
    ensure!(stays, "it does not wait{}", running.state());
    running.signal(Signal::TERM);
    running.ended(SOON).await?;
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
    running.signal(Signal::TERM);
    running.ended(SOON).await?;
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
