//! What a host says, and what follows from it.

use std::time::Duration;

use anyhow::{Context, ensure};
use futures::FutureExt;
use serde_json::json;

use super::Named;
use super::stdout::{fatal, only_messages};
use crate::scene::Scene;
use crate::subject::INSTANCE;
use crate::verdict::Verdict;

pub(super) const CHECKS: &[Named] = &[
    ("control.waits_for_start", |s| {
        waits_for_start(s).boxed_local()
    }),
    ("control.unknown_ignored", |s| {
        unknown_ignored(s).boxed_local()
    }),
    ("control.version", |s| version(s).boxed_local()),
    ("control.reload", |s| reload(s).boxed_local()),
    ("control.cancel", |s| cancel(s).boxed_local()),
];

async fn waits_for_start(scene: Scene<'_>) -> Verdict {
    let mut running = scene.hosted()?;
    running.next("hello").await?;
    let stays = running.stays(Duration::from_millis(500)).await;
    ensure!(stays, "it ended without a `start`{}", running.state());
    for message in running.messages() {
        let works = message["type"] == "outputs" || message["type"] == "ready";
        ensure!(!works, "it works without a `start`: {message}");
    }
    if scene.subject.is_stage() {
        let holder = scene.open_run_dir()?.holder(INSTANCE);
        ensure!(holder.is_none(), "it took the lock before `start`");
    }
    running.tell(&scene.start()).await?;
    running.ready().await?;
    running.stop().await.map(drop)
}

async fn unknown_ignored(scene: Scene<'_>) -> Verdict {
    let mut running = scene.hosted()?;
    running.tell(&json!({"dcs": 1, "type": "from_the_future", "config": {"no_such_field": 1}, "list": [1, {}]})).await?;
    let mut start = scene.start();
    start["trace"] = json!({"id": "unknown", "nested": [null]});
    running.tell(&start).await?;
    running.ready().await?;
    for message in [
        json!({"dcs": 1, "type": "another_one"}),
        json!({"dcs": 1, "type": "shutdown", "why": "an unknown field"}),
    ] {
        running.tell(&message).await?;
    }
    let status = running.end().await?;
    ensure!(status.success(), "{status}{}", running.state());
    Ok(())
}

async fn version(scene: Scene<'_>) -> Verdict {
    for other in [json!(2), json!("1"), json!(null)] {
        let scene = scene.another().await?;
        let mut running = scene.hosted()?;
        let mut start = scene.start();
        start["dcs"] = other.clone();
        running.tell(&start).await?;
        let ended = running.end().await;
        let status = ended.with_context(|| format!("after a line with \"dcs\":{other}"))?;
        let state = running.state();
        let right = status.code() == Some(3);
        ensure!(
            right,
            "\"dcs\":{other}: it ended with {status}, and this is exit code 3{state}"
        );
        let messages = only_messages(&running)?;
        let says_why = fatal(&messages).is_some();
        ensure!(
            says_why,
            "\"dcs\":{other}: no `error` message that is fatal"
        );
    }
    Ok(())
}

async fn reload(scene: Scene<'_>) -> Verdict {
    let mut running = scene.ready().await?;
    running.tell(&scene.with_unknown_field("reload")).await?;
    let error = running.next("error").await?;
    ensure!(
        error["error"]["fatal"] == false,
        "a wrong reload is not fatal: {error}"
    );
    let mut right = scene.start();
    right["type"] = json!("reload");
    running.tell(&right).await?;
    running.ready().await?;
    let status = running.stop().await?;
    ensure!(status.success(), "{status}{}", running.state());
    Ok(())
}

async fn cancel(scene: Scene<'_>) -> Verdict {
    let cancel = json!({"dcs": 1, "type": "cancel"});
    let mut running = scene.hosted()?;
    running.tell(&cancel).await?;
    running.tell(&scene.start()).await?;
    let status = running.end().await?;
    let (code, state) = (status.code(), running.state());
    ensure!(
        code == Some(1),
        "cancelled before it was ready it ended with {status}, and this is exit code 1{state}"
    );
    let scene = scene.another().await?;
    let mut running = scene.ready().await?;
    running.tell(&cancel).await?;
    let stays = running.stays(Duration::from_millis(300)).await;
    ensure!(
        stays,
        "it was ready, and ended by `cancel`{}",
        running.state()
    );
    running.stop().await.map(drop)
}
