//! Checks of the commands of a host.

use super::prelude::*;

checks! {
    "control.waits_for_start" => waits_for_start,
    "control.unknown_ignored" => unknown_ignored,
    "control.version" => version; WithoutReady,
    "control.reload" => reload,
    "control.cancel" => cancel,
}

async fn waits_for_start(scene: Scene<'_>) -> Verdict {
    let mut running = scene.hosted()?;
    running.next("hello").await?;
    let window = Duration::from_millis(500);
    running.stays(window, "it ended without a `start`").await?;
    for message in running.messages() {
        let works = message["type"] == "outputs" || message["type"] == "ready";
        ensure!(!works, "it works without a `start`: {message}");
    }
    if scene.subject.is_stage() {
        let holder = scene.open_run_dir()?.holder(INSTANCE);
        ensure!(holder.is_none(), "it acquired the lock before `start`");
    }
    running.send(&scene.start()).await?;
    running.ready().await?;
    running.stop().await.map(drop)
}

async fn unknown_ignored(scene: Scene<'_>) -> Verdict {
    let mut running = scene.hosted()?;
    running.send(&json!({"dcs": 1, "type": "from_the_future", "config": {"no_such_field": 1}, "list": [1, {}]})).await?;
    let mut start = scene.start();
    start["trace"] = json!({"id": "unknown", "nested": [null]});
    running.send(&start).await?;
    running.ready().await?;
    for message in [
        json!({"dcs": 1, "type": "another_one"}),
        json!({"dcs": 1, "type": "shutdown", "why": "an unknown field"}),
    ] {
        running.send(&message).await?;
    }
    running.end().await?.exits(0, "after an unknown field")
}

async fn version(scene: Scene<'_>) -> Verdict {
    for other in [json!(2), json!("1"), json!(null)] {
        let scene = scene.another().await?;
        let mut running = scene.hosted()?;
        let mut start = scene.start();
        start["dcs"] = other.clone();
        running.send(&start).await?;
        let case = format!("after a line with \"dcs\":{other}");
        let ended = running.end().await.context(case.clone())?;
        ended.exits(3, &case)?;
        let says_why = fatal(&only_messages(&running)?).is_some();
        ensure!(says_why, "{case}: no `error` message that is fatal");
    }
    Ok(())
}

async fn reload(scene: Scene<'_>) -> Verdict {
    let mut running = scene.ready().await?;
    running.send(&scene.with_unknown_field("reload")).await?;
    let error = running.next("error").await?;
    let is_fatal = &error["error"]["fatal"];
    ensure!(
        is_fatal == false,
        "the error of an invalid reload must not be fatal: {error}"
    );
    let mut right = scene.start();
    right["type"] = json!("reload");
    running.send(&right).await?;
    running.ready().await?;
    running.stop().await?.exits(0, "after a reload")
}

async fn cancel(scene: Scene<'_>) -> Verdict {
    let cancel = json!({"dcs": 1, "type": "cancel"});
    let mut running = scene.hosted()?;
    running.send(&cancel).await?;
    running.send(&scene.start()).await?;
    let ended = running.end().await?;
    ended.exits(1, "cancelled before it was ready")?;
    let scene = scene.another().await?;
    let mut running = scene.ready().await?;
    running.send(&cancel).await?;
    let wrong = "it was ready, and ended by `cancel`";
    running.stays(Duration::from_millis(300), wrong).await?;
    running.stop().await.map(drop)
}
