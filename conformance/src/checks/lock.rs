//! Checks of the lock.

use tokio::time::timeout;

use super::prelude::*;

/// A second run waits up to 5 s.
const PATIENCE: Duration = Duration::from_secs(15);

/// Less than that.
const WAITS: Duration = Duration::from_secs(2);

checks! {
    "lock.second_run" => second_run,
    "lock.successor" => successor,
    "lock.released" => released,
}

async fn second_run(scene: Scene<'_>) -> Verdict {
    let mut first = scene.ready().await?;
    let mut second = scene.listed()?;
    let (cleanup, ended) = tokio::join!(scene.call("cleanup", &[]), second.end_within(PATIENCE));
    ended?.exits(6, "a second run")?;
    let is_ready = !second.last("ready").is_null();
    ensure!(!is_ready, "the second run sent `ready`");
    cleanup?.exits(6, "`cleanup` of an instance that runs")?;
    let window = Duration::from_millis(100);
    first.stays(window, "it ended the first run").await?;
    let file = scene.outputs_file().unwrap_or_default();
    let is_kept = file["run"] == first.last("hello")["run"];
    ensure!(
        is_kept,
        "the outputs file of the first run is gone or replaced"
    );
    first.stop().await.map(drop)
}

async fn successor(scene: Scene<'_>) -> Verdict {
    let mut first = scene.listed()?;
    first.ready().await?;
    let mut second = scene.listed()?;
    second.next("hello").await?;
    let window = Duration::from_millis(300);
    // By its own time, which on a busy machine can take longer than a run waits for the lock.
    let stays = timeout(WAITS, second.stays(window, "it does not wait")).await;
    stays.unwrap_or(Ok(()))?;
    first.end_by(Signal::TERM).await?;
    second.ready().await?;
    second.stop().await.map(drop)
}

async fn released(scene: Scene<'_>) -> Verdict {
    for signal in [Signal::TERM, Signal::KILL] {
        let scene = scene.another().await?;
        let mut running = scene.listed()?;
        running.ready().await?;
        running.end_by(signal).await?;
        scene.no_process_is_left().await?;
        let holder = scene.open_run_dir()?.holder(INSTANCE);
        ensure!(holder.is_none(), "its lock is still held after its end");
    }
    Ok(())
}
