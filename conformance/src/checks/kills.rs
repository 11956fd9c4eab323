//! Checks that the next run or `cleanup` removes what SIGKILL leaves.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::time::{Instant, sleep};

use super::prelude::*;

checks! {
    "kill.processes" => processes; Alone,
    "kill.leftovers" => leftovers; Alone,
}

/// Random times in a run, in units of the time until it is ready: two thirds before that, the others after it.
fn moments(count: u32) -> impl Iterator<Item = f64> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let first = f64::from(now.map_or(0, |d| d.subsec_nanos()) % 1000) / 1000.0;
    // The golden ratio spreads any number of times evenly.
    (0..count).map(move |i| (first + f64::from(i) * 0.618_034).fract() * 1.5)
}

async fn time_to_ready(scene: &Scene<'_>) -> Result<Duration> {
    let scene = scene.another().await?;
    let began = Instant::now();
    let mut running = scene.ready().await?;
    let took = began.elapsed();
    running.stop().await?;
    Ok(took)
}

/// Starts it and kills it. A group leader is killed with its group, as a host kills a plugin.
async fn killed_at(scene: &Scene<'_>, moment: f64, ready: Duration) -> Result<Value> {
    let mut running = scene.started().await?;
    if moment < 1.0 {
        sleep(ready.mul_f64(moment)).await;
    } else {
        running.ready().await?;
        sleep(ready.mul_f64((moment - 1.0) / 5.0)).await;
    }
    match scene.subject.is_stage() {
        true => running.signal(Signal::KILL),
        false => running.kill_group(),
    }
    running.ended(SOON).await?;
    Ok(running.last("outputs")["outputs"].clone())
}

/// The time of the kill, for people.
fn point(moment: f64) -> String {
    match moment < 1.0 {
        true => format!(
            "killed after {:.0} % of its time until ready",
            moment * 100.0
        ),
        false => "killed once ready".to_owned(),
    }
}

async fn processes(scene: Scene<'_>) -> Verdict {
    let ready = time_to_ready(&scene).await?;
    for moment in moments(scene.subject.kills) {
        killed_at(&scene, moment, ready).await?;
        let left = scene.no_process_is_left().await;
        left.with_context(|| point(moment))?;
    }
    Ok(())
}

async fn clean_twice(scene: &Scene<'_>) -> Verdict {
    if !scene.subject.has("cleanup") {
        return Ok(());
    }
    for _ in 0..2 {
        let output = scene.call("cleanup", &[]).await?;
        output.exits(0, "`cleanup` after a kill")?;
    }
    Ok(())
}

async fn leftovers(scene: Scene<'_>) -> Verdict {
    let ready = time_to_ready(&scene).await?;
    // Files that a clean run and a cleanup leave, such as a lock.
    scene.ready().await?.stop().await?;
    clean_twice(&scene).await?;
    let kept = scene.files();
    for (i, moment) in moments(scene.subject.kills).enumerate() {
        let scene = scene.another().await?;
        let outputs = killed_at(&scene, moment, ready).await?;
        let mut ports = scene.ports(&outputs);
        // The next run in half of the cases, an immediate `cleanup` in the others.
        if i % 2 == 0 {
            let mut next = scene.ready().await?;
            ports.extend(scene.ports(&next.last("outputs")["outputs"]));
            next.stop().await?;
        }
        clean_twice(&scene).await?;
        scene.no_process_is_left().await?;
        scene.no_port_is_left(&ports).await?;
        let files = scene.files();
        let mut new = files
            .iter()
            .filter(|f| !kept.contains(*f) && !is_bookkeeping(f));
        if let Some(left) = new.next() {
            bail!("{} it leaves ~/{}", point(moment), left.display());
        }
    }
    Ok(())
}

/// Whether a file is one that the run directory may keep for an instance.
fn is_bookkeeping(file: &Path) -> bool {
    [
        format!("run/{INSTANCE}.lock"),
        format!("run/status/{INSTANCE}.json"),
        format!("run/outputs/.{INSTANCE}.prev"),
    ]
    .iter()
    .any(|kept| file == Path::new(kept))
}
