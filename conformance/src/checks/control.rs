//! What a host says, and what follows from it.

use std::time::Duration;

use futures::FutureExt;
use protocol::rundir::RunDir;
use serde_json::json;

use crate::scene::{SOON, Scene};
use crate::subject::{INSTANCE, Subject};
use crate::verdict::{Verdict, demand, failed};
use crate::{Check, Level};

use super::stdout::only_messages;

const SECTION: &str = "what-a-host-says";

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "control.waits_for_start",
        level: Level::Plugin,
        title: "nothing is done before start",
        section: SECTION,
        run: |s| waits_for_start(s).boxed_local(),
    },
    Check {
        id: "control.unknown_ignored",
        level: Level::Plugin,
        title: "fields and types that it does not know are ignored",
        section: "versions",
        run: |s| unknown_ignored(s).boxed_local(),
    },
    Check {
        id: "control.version",
        level: Level::Plugin,
        title: "a line of another version is refused with an error and exit 3",
        section: "versions",
        run: |s| version(s).boxed_local(),
    },
    Check {
        id: "control.reload",
        level: Level::Stage,
        title: "reload is taken in the same process; a wrong one is refused and all stays as it was",
        section: SECTION,
        run: |s| reload(s).boxed_local(),
    },
    Check {
        id: "control.cancel",
        level: Level::Stage,
        title: "cancel gives up with exit 1 before ready and is ignored once ready",
        section: SECTION,
        run: |s| cancel(s).boxed_local(),
    },
];

async fn waits_for_start(subject: &Subject) -> Verdict {
    let scene = Scene::new(subject)?;
    let mut running = scene.hosted()?;
    running.next("hello").await?;
    let stays = running.stays(Duration::from_millis(500)).await;
    demand(stays, || {
        format!("it ended without a `start`{}", running.state())
    })?;
    let done = running
        .messages()
        .into_iter()
        .find(|m| ["outputs", "ready"].iter().any(|t| m["type"] == *t));
    demand(done.is_none(), || {
        format!("it works without a `start`: {}", done.unwrap_or_default())
    })?;
    if subject.is_stage() {
        let holder = RunDir::open(&scene.run_dir())
            .ok()
            .and_then(|d| d.holder(INSTANCE));
        demand(holder.is_none(), || {
            "it took the lock before `start`".to_owned()
        })?;
    }
    running.tell(&scene.start()).await?;
    running.ready().await?;
    running.stop().await.map(drop)
}

async fn unknown_ignored(subject: &Subject) -> Verdict {
    let scene = Scene::new(subject)?;
    let mut running = scene.hosted()?;
    running.tell(&json!({"dcs": 1, "type": "from_the_future", "config": {"no_such_field": 1}, "list": [1, {}]})).await?;
    let mut start = scene.start();
    start["trace"] = json!({"id": "unknown", "nested": [null]});
    running.tell(&start).await?;
    running.ready().await?;
    running
        .tell(&json!({"dcs": 1, "type": "another_one"}))
        .await?;
    running
        .tell(&json!({"dcs": 1, "type": "shutdown", "why": "an unknown field"}))
        .await?;
    let (status, _) = running.ended(SOON).await?;
    demand(status.success(), || format!("{status}{}", running.state()))
}

async fn version(subject: &Subject) -> Verdict {
    for other in [json!(2), json!("1"), json!(null)] {
        let scene = Scene::new(subject)?;
        let mut running = scene.hosted()?;
        let mut start = scene.start();
        start["dcs"] = other.clone();
        running.tell(&start).await?;
        let (status, _) = running.ended(SOON).await.or_else(|_| {
            failed(format!(
                "it goes on after a line with \"dcs\":{other}{}",
                running.state()
            ))
        })?;
        running.heard_out().await?;
        demand(status.code() == Some(3), || {
            format!(
                "\"dcs\":{other}: it ended with {status}, and this is exit code 3{}",
                running.state()
            )
        })?;
        let messages = only_messages(&running.stdout)?;
        let said = messages
            .iter()
            .any(|m| m["type"] == "error" && m["error"]["fatal"] == true);
        demand(said, || {
            format!("\"dcs\":{other}: no `error` message that is fatal")
        })?;
    }
    Ok(())
}

async fn reload(subject: &Subject) -> Verdict {
    let scene = Scene::new(subject)?;
    let mut running = scene.ready().await?;
    let mut wrong = scene.start();
    wrong["type"] = json!("reload");
    wrong["config"]["no_such_field"] = json!(1);
    running.tell(&wrong).await?;
    let error = running.next("error").await?;
    demand(error["error"]["fatal"] == false, || {
        format!("a wrong reload is not fatal: {error}")
    })?;
    let stays = running.stays(Duration::from_millis(200)).await;
    demand(stays, || {
        format!("it ended by a wrong reload{}", running.state())
    })?;
    let mut right = scene.start();
    right["type"] = json!("reload");
    running.tell(&right).await?;
    // The two copies of the first `ready` may not both have been looked at.
    let before = running
        .messages()
        .iter()
        .filter(|m| m["type"] == "ready")
        .count();
    let mut ready = before;
    while ready <= before {
        running.ready().await?;
        ready = running
            .messages()
            .iter()
            .filter(|m| m["type"] == "ready")
            .count();
    }
    let status = running.stop().await?;
    demand(status.success(), || format!("{status}{}", running.state()))
}

async fn cancel(subject: &Subject) -> Verdict {
    let cancel = json!({"dcs": 1, "type": "cancel"});
    let scene = Scene::new(subject)?;
    let mut running = scene.hosted()?;
    running.tell(&cancel).await?;
    running.tell(&scene.start()).await?;
    let (status, _) = running.ended(SOON).await?;
    demand(status.code() == Some(1), || {
        format!(
            "cancelled before it was ready it ended with {status}, and this is exit code 1{}",
            running.state()
        )
    })?;
    let scene = Scene::new(subject)?;
    let mut running = scene.ready().await?;
    running.tell(&cancel).await?;
    let stays = running.stays(Duration::from_millis(300)).await;
    demand(stays, || {
        format!("it was ready, and ended by `cancel`{}", running.state())
    })?;
    running.stop().await.map(drop)
}
