//! Whatever stdin is, a stage works and stops.

use std::os::fd::OwnedFd;
use std::time::Duration;

use futures::FutureExt;
use rustix::process::Signal;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

use crate::running::{Input, Running, Streams};
use crate::scene::{SOON, Scene};
use crate::subject::Subject;
use crate::verdict::{Finding, Verdict, demand};
use crate::world;
use crate::{Check, Level};

use super::stdout::only_messages;

const SECTION: &str = "stdin";

/// How long an idle stage is looked at, and how much of that it may compute.
const IDLE: Duration = Duration::from_secs(1);
const BUSY: Duration = Duration::from_millis(300);

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "stdin.null",
        level: Level::Plugin,
        title: "with stdin at /dev/null a plugin ends in good order, a full stage works",
        section: SECTION,
        run: |s| null(s).boxed_local(),
    },
    Check {
        id: "stdin.closed",
        level: Level::Plugin,
        title: "with stdin closed a plugin ends, a full stage works",
        section: SECTION,
        run: |s| closed(s).boxed_local(),
    },
    Check {
        id: "stdin.silent",
        level: Level::Plugin,
        title: "with an open pipe in which nobody speaks it waits without computing",
        section: SECTION,
        run: |s| silent(s).boxed_local(),
    },
    Check {
        id: "stdin.terminal",
        level: Level::Plugin,
        title: "stdin may be a terminal",
        section: SECTION,
        run: |s| terminal(s).boxed_local(),
    },
];

fn spawn(scene: &Scene, stdin: Input) -> Result<Running, Finding> {
    let command = match scene.subject.is_stage() {
        true => scene.listed_command(&["--events", "all"])?,
        false => scene.verb("run", &["--stdin", "control"]),
    };
    Running::spawn(
        scene,
        command,
        Streams {
            stdin,
            closed: None,
        },
    )
}

/// A full stage listed in a devcluster.yaml has nobody to speak to it; a plugin without a host has no reason to stay.
async fn without_host(subject: &Subject, stdin: Input) -> Verdict {
    let scene = Scene::new(subject)?;
    let closed = matches!(stdin, Input::Closed);
    let mut running = spawn(&scene, stdin)?;
    if !subject.is_stage() {
        let (status, _) = running.ended(SOON).await?;
        running.heard_out().await?;
        only_messages(&running.stdout)?;
        // Without a stdin at all it may say that something is wrong.
        let good = status.success() || (closed && status.code().is_some());
        return demand(good, || {
            format!("without a host it ended with {status}{}", running.state())
        });
    }
    running.ready().await?;
    let stays = running.stays(Duration::from_millis(200)).await;
    demand(stays, || format!("it does not stay{}", running.state()))?;
    let status = running.stop().await?;
    demand(status.success(), || format!("{status}{}", running.state()))
}

async fn null(subject: &Subject) -> Verdict {
    without_host(subject, Input::Null).await
}

async fn closed(subject: &Subject) -> Verdict {
    without_host(subject, Input::Closed).await
}

async fn silent(subject: &Subject) -> Verdict {
    let scene = Scene::new(subject)?;
    let mut running = spawn(&scene, Input::Pipe)?;
    if subject.is_stage() {
        running.ready().await?;
    } else {
        running.next("hello").await?;
    }
    let before = world::cpu_time(running.pid());
    let stays = running.stays(IDLE).await;
    demand(stays, || format!("it does not wait{}", running.state()))?;
    if let (Some(before), Some(after)) = (before, world::cpu_time(running.pid())) {
        let busy = after.saturating_sub(before);
        demand(busy < BUSY, || {
            format!("it computed for {busy:?} of {IDLE:?} in which nothing happened")
        })?;
    }
    running.signal(Signal::TERM);
    running.ended(SOON).await?;
    scene.no_process_is_left().await
}

async fn terminal(subject: &Subject) -> Verdict {
    let scene = Scene::new(subject)?;
    let (ours, theirs) = open_terminal()?;
    let mut running = spawn(&scene, Input::Terminal(theirs))?;
    if !subject.is_stage() {
        running.next("hello").await?;
        rustix::io::write(&ours, format!("{}\n", scene.start()).as_bytes())?;
    }
    running.ready().await?;
    running.signal(Signal::TERM);
    running.ended(SOON).await?;
    scene.no_process_is_left().await
}

/// A terminal that takes long lines: not edited, not echoed.
fn open_terminal() -> Result<(OwnedFd, OwnedFd), Finding> {
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
