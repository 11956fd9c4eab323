//! stdout and stderr: who holds them, and what when they are closed.

use std::time::Duration;

use futures::FutureExt;

use crate::running::{Running, Streams};
use crate::scene::{SOON, Scene};
use crate::subject::Subject;
use crate::verdict::{Finding, Verdict, demand, failed};
use crate::world;
use crate::{Check, Level};

use super::stdout::only_messages;

const SECTION: &str = "stopping";

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "streams.descendants",
        level: Level::Plugin,
        title: "no process that it started holds its stdout or stderr",
        section: SECTION,
        run: |s| descendants(s).boxed_local(),
    },
    Check {
        id: "streams.stdout_closed",
        level: Level::Plugin,
        title: "started with stdout closed it does not write messages elsewhere, and stops",
        section: "lines",
        run: |s| stdout_closed(s).boxed_local(),
    },
    Check {
        id: "streams.stderr_closed",
        level: Level::Plugin,
        title: "started with stderr closed it works, and text for people does not get into stdout",
        section: "lines",
        run: |s| stderr_closed(s).boxed_local(),
    },
    Check {
        id: "streams.host_gone",
        level: Level::Plugin,
        title: "it ends when all its pipes lose their other end",
        section: SECTION,
        run: |s| host_gone(s).boxed_local(),
    },
    Check {
        id: "streams.reader_gone",
        level: Level::Stage,
        title: "it ends by itself when nobody reads its stdout, or its stderr, any more",
        section: SECTION,
        run: |s| reader_gone(s).boxed_local(),
    },
];

async fn descendants(subject: &Subject) -> Verdict {
    let scene = Scene::new(subject)?;
    let mut running = scene.ready().await?;
    let own = running.pid();
    let others: Vec<_> = scene
        .processes()
        .into_iter()
        .filter(|p| p.pid != own)
        .collect();
    for process in others {
        let held = world::descriptors(process.pid);
        let pipe = running.pipes().into_iter().find(|pipe| held.contains(pipe));
        demand(pipe.is_none(), || {
            format!("{process} holds its stdout or stderr")
        })?;
    }
    running.stop().await.map(drop)
}

fn without(scene: &Scene, fd: i32) -> Result<Running, Finding> {
    let command = scene.verb("run", &["--stdin", "control"]);
    let streams = Streams {
        closed: Some(fd),
        ..Streams::default()
    };
    Running::spawn(scene, command, streams)
}

async fn stdout_closed(subject: &Subject) -> Verdict {
    let scene = Scene::new(subject)?;
    let mut running = without(&scene, 1)?;
    running.tell(&scene.start()).await?;
    // It may say that it cannot work like this, or work.
    if running.stays(Duration::from_secs(1)).await {
        running
            .tell(&serde_json::json!({"dcs": 1, "type": "shutdown"}))
            .await?;
        running.close_stdin();
        running.ended(SOON).await?;
    }
    for file in world::files(scene.home()) {
        let text = std::fs::read(&file).unwrap_or_default();
        demand(!world::contains(&text, br#""type":"hello""#), || {
            format!(
                "its messages went into {}: a file that it opened got the number of stdout",
                file.display()
            )
        })?;
    }
    scene.no_process_is_left().await
}

async fn stderr_closed(subject: &Subject) -> Verdict {
    let scene = Scene::new(subject)?;
    let mut running = without(&scene, 2)?;
    running.tell(&scene.start()).await?;
    running.ready().await?;
    running.write(b"not a message\n").await?;
    running
        .tell(&serde_json::json!({"dcs": 1, "type": "shutdown"}))
        .await?;
    let (status, _) = running.ended(SOON).await?;
    running.heard_out().await?;
    only_messages(&running.stdout)?;
    demand(status.success(), || format!("it ended with {status}"))?;
    scene.no_process_is_left().await
}

async fn host_gone(subject: &Subject) -> Verdict {
    let scene = Scene::new(subject)?;
    let mut running = scene.ready().await?;
    running.stop_reading(1);
    running.stop_reading(2);
    running.close_stdin();
    running.ended(SOON).await?;
    scene.no_process_is_left().await
}

async fn reader_gone(subject: &Subject) -> Verdict {
    for fd in [1, 2] {
        let scene = Scene::new(subject)?;
        let mut running = scene.listed()?;
        running.ready().await?;
        running.stop_reading(fd);
        if running.ended(SOON).await.is_err() {
            let stream = if fd == 1 { "stdout" } else { "stderr" };
            return failed(format!("nobody reads its {stream} any more, and it stays"));
        }
        scene.no_process_is_left().await?;
    }
    Ok(())
}
