//! One process runs an instance.

use std::time::Duration;

use anyhow::ensure;
use futures::FutureExt;
use rustix::process::Signal;

use super::Named;
use crate::harness::SOON;
use crate::scene::Scene;
use crate::subject::INSTANCE;
use crate::verdict::Verdict;

/// A second run waits for up to 5 s.
const PATIENCE: Duration = Duration::from_secs(15);

pub(super) const CHECKS: &[Named] = &[
    ("lock.second_run", |s| second_run(s).boxed_local()),
    ("lock.successor", |s| successor(s).boxed_local()),
    ("lock.released", |s| released(s).boxed_local()),
];

async fn second_run(scene: Scene<'_>) -> Verdict {
    let mut first = scene.ready().await?;
    let mut second = scene.listed()?;
    let (cleanup, ended) = tokio::join!(scene.call("cleanup", &[]), second.ended(PATIENCE));
    let (status, _) = ended?;
    let (code, state) = (status.code(), second.state());
    ensure!(
        code == Some(6),
        "a second run ended with {status}, and this is exit code 6{state}"
    );
    ensure!(
        second.last("ready").is_null(),
        "the second run said `ready`"
    );
    let cleanup = cleanup?;
    let refused = cleanup.code == Some(6);
    ensure!(
        refused,
        "`cleanup` of an instance that runs: {}",
        cleanup.shown()
    );
    let stays = first.stays(Duration::from_millis(100)).await;
    ensure!(stays, "the first run ended by it{}", first.state());
    let file = scene.outputs_file().unwrap_or_default();
    let is_kept = file["run"] == first.last("hello")["run"];
    ensure!(
        is_kept,
        "the outputs file of the first run is gone, or another's"
    );
    first.stop().await.map(drop)
}

async fn successor(scene: Scene<'_>) -> Verdict {
    let mut first = scene.listed()?;
    first.ready().await?;
    let mut second = scene.listed()?;
    second.next("hello").await?;
    let stays = second.stays(Duration::from_millis(300)).await;
    ensure!(stays, "it does not wait{}", second.state());
    first.signal(Signal::TERM);
    first.ended(SOON).await?;
    second.ready().await?;
    second.stop().await.map(drop)
}

async fn released(scene: Scene<'_>) -> Verdict {
    for signal in [Signal::TERM, Signal::KILL] {
        let scene = scene.another().await?;
        let mut running = scene.listed()?;
        running.ready().await?;
        running.signal(signal);
        running.ended(SOON).await?;
        scene.no_process_is_left().await?;
        let holder = scene.open_run_dir()?.holder(INSTANCE);
        ensure!(holder.is_none(), "it has ended, and its lock is still held");
    }
    Ok(())
}
