//! One process runs an instance.

use std::time::Duration;

use futures::FutureExt;
use rustix::process::Signal;
use tokio::time::sleep;

use crate::scene::{SOON, Scene};
use crate::subject::{INSTANCE, Subject};
use crate::verdict::{Verdict, demand};
use crate::{Check, Level};

use super::outputs::open;

/// A second run waits for up to 5 s.
const PATIENCE: Duration = Duration::from_secs(15);

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "lock.second_run",
        level: Level::Stage,
        title: "a second run, and a cleanup, of an instance that runs is refused with exit 6",
        section: "locks",
        run: |s| second_run(s).boxed_local(),
    },
    Check {
        id: "lock.successor",
        level: Level::Stage,
        title: "a run waits for a predecessor that is just stopping",
        section: "locks",
        run: |s| successor(s).boxed_local(),
    },
    Check {
        id: "lock.released",
        level: Level::Stage,
        title: "the lock is free after its end, killed or not",
        section: "locks",
        run: |s| released(s).boxed_local(),
    },
];

async fn second_run(subject: &Subject) -> Verdict {
    let scene = Scene::new(subject)?;
    let mut first = scene.ready().await?;
    let mut second = scene.listed()?;
    let (cleanup, ended) = tokio::join!(scene.call("cleanup", &[]), second.ended(PATIENCE));
    let (status, _) = ended?;
    demand(status.code() == Some(6), || {
        format!(
            "a second run ended with {status}, and this is exit code 6{}",
            second.state()
        )
    })?;
    demand(second.last("ready").is_none(), || {
        "the second run said `ready`".to_owned()
    })?;
    let cleanup = cleanup?;
    demand(cleanup.code == Some(6), || {
        format!("`cleanup` of an instance that runs: {}", cleanup.shown())
    })?;
    let stays = first.stays(Duration::from_millis(100)).await;
    demand(stays, || {
        format!("the first run ended by it{}", first.state())
    })?;
    let run = first.last("hello").unwrap_or_default()["run"].clone();
    let file = scene.outputs_file().unwrap_or_default();
    demand(file["run"] == run, || {
        "the outputs file of the first run is gone, or another's".to_owned()
    })?;
    first.stop().await.map(drop)
}

async fn successor(subject: &Subject) -> Verdict {
    let scene = Scene::new(subject)?;
    let mut first = scene.listed()?;
    first.ready().await?;
    let mut second = scene.listed()?;
    second.next("hello").await?;
    sleep(Duration::from_millis(300)).await;
    first.signal(Signal::TERM);
    first.ended(SOON).await?;
    second.ready().await?;
    second.stop().await.map(drop)
}

async fn released(subject: &Subject) -> Verdict {
    for signal in [Signal::TERM, Signal::KILL] {
        let scene = Scene::new(subject)?;
        let mut running = scene.listed()?;
        running.ready().await?;
        running.signal(signal);
        running.ended(SOON).await?;
        scene.no_process_is_left().await?;
        let holder = open(&scene)?.holder(INSTANCE);
        demand(holder.is_none(), || {
            "it has ended, and its lock is still held".to_owned()
        })?;
    }
    Ok(())
}
