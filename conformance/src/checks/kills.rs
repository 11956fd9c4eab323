//! SIGKILL at any point leaves nothing that the next run or `cleanup` does not take away.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::FutureExt;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::scene::{SOON, Scene};
use crate::subject::{INSTANCE, Subject};
use crate::verdict::{Finding, Verdict, demand, failed};
use crate::{Check, Level};

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "kill.processes",
        level: Level::Plugin,
        title: "killed at any point it leaves no process",
        section: "cleanup",
        run: |s| processes(s).boxed_local(),
    },
    Check {
        id: "kill.leftovers",
        level: Level::Plugin,
        title: "killed at any point, a run and two cleanups later no port and no file of it is left",
        section: "cleanup",
        run: |s| leftovers(s).boxed_local(),
    },
];

/// Points in its life, as parts of the time until it is ready: two thirds before that, the others after it. Other ones
/// each time.
fn moments(count: u32) -> impl Iterator<Item = f64> {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.subsec_nanos());
    let first = f64::from(now % 1000) / 1000.0;
    // The golden ratio spreads any number of points evenly.
    (0..count).map(move |i| (first + f64::from(i) * 0.618_034).fract() * 1.5)
}

async fn time_to_ready(subject: &Subject) -> Result<Duration, Finding> {
    let scene = Scene::new(subject)?;
    let began = Instant::now();
    let mut running = scene.ready().await?;
    let took = began.elapsed();
    running.stop().await?;
    Ok(took)
}

/// Starts it and kills it. What leads a group is killed with it, as a host does with a plugin.
async fn killed_at(scene: &Scene<'_>, moment: f64, ready: Duration) -> Result<Value, Finding> {
    let mut running = scene.started().await?;
    if moment < 1.0 {
        sleep(ready.mul_f64(moment)).await;
    } else {
        running.ready().await?;
        sleep(ready.mul_f64((moment - 1.0) / 5.0)).await;
    }
    running.kill(!scene.subject.is_stage());
    running.ended(SOON).await?;
    Ok(running
        .last("outputs")
        .map_or(Value::Null, |m| m["outputs"].clone()))
}

/// The point, for people.
fn point(moment: f64) -> String {
    match moment < 1.0 {
        true => format!("killed after {:.0} % of its way to ready", moment * 100.0),
        false => "killed once ready".to_owned(),
    }
}

async fn processes(subject: &Subject) -> Verdict {
    let ready = time_to_ready(subject).await?;
    let scene = Scene::new(subject)?;
    for moment in moments(subject.kills) {
        killed_at(&scene, moment, ready).await?;
        if let Err(Finding::Failed(why)) = scene.no_process_is_left().await {
            return failed(format!("{} {why}", point(moment)));
        }
    }
    Ok(())
}

/// Files that a clean run and a cleanup leave: a lock, a last status.
async fn kept_by_clean_run(subject: &Subject) -> Result<BTreeSet<PathBuf>, Finding> {
    let scene = Scene::new(subject)?;
    scene.ready().await?.stop().await?;
    clean_twice(&scene).await?;
    Ok(scene.files())
}

async fn clean_twice(scene: &Scene<'_>) -> Verdict {
    if !scene.subject.has("cleanup") {
        return Ok(());
    }
    for _ in 0..2 {
        let output = scene.call("cleanup", &[]).await?;
        demand(output.code == Some(0), || {
            format!("`cleanup` after a kill: {}", output.shown())
        })?;
    }
    Ok(())
}

async fn leftovers(subject: &Subject) -> Verdict {
    let ready = time_to_ready(subject).await?;
    let kept = kept_by_clean_run(subject).await?;
    for (i, moment) in moments(subject.kills).enumerate() {
        let scene = Scene::new(subject)?;
        let outputs = killed_at(&scene, moment, ready).await?;
        let mut ports = scene.ports(&outputs);
        // The next run in half of the cases, `cleanup` at once in the others.
        if i % 2 == 0 {
            let mut next = scene.ready().await?;
            let outputs = next
                .last("outputs")
                .map_or(Value::Null, |m| m["outputs"].clone());
            ports.extend(scene.ports(&outputs));
            next.stop().await?;
        }
        clean_twice(&scene).await?;
        scene.no_process_is_left().await?;
        scene.no_port_is_left(&ports).await?;
        let files = scene.files();
        if let Some(left) = files
            .iter()
            .find(|f| !kept.contains(*f) && !is_bookkeeping(f))
        {
            let left = left.display();
            return failed(format!("{} it leaves ~/{left}", point(moment)));
        }
    }
    Ok(())
}

/// What the run directory keeps of an instance, whichever of it the clean run had.
fn is_bookkeeping(file: &Path) -> bool {
    [
        format!("run/{INSTANCE}.lock"),
        format!("run/status/{INSTANCE}.json"),
        format!("run/outputs/.{INSTANCE}.prev"),
    ]
    .iter()
    .any(|kept| file == Path::new(kept))
}
