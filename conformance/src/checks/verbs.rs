//! The verbs and the command line of a full stage.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::ensure;
use futures::FutureExt;
use rustix::process::Signal;

use super::Named;
use super::stdout::{fatal, only_messages};
use crate::harness::{Output, SOON, shown};
use crate::scene::Scene;
use crate::subject::INSTANCE;
use crate::verdict::Verdict;

pub(super) const CHECKS: &[Named] = &[
    ("verbs.default", |s| default(s).boxed_local()),
    ("verbs.usage", |s| usage(s).boxed_local()),
    ("verbs.wait", |s| wait(s).boxed_local()),
    ("verbs.check", |s| check(s).boxed_local()),
    ("verbs.preflight", |s| preflight(s).boxed_local()),
    ("verbs.once", |s| once(s).boxed_local()),
    ("verbs.cleanup", |s| cleanup(s).boxed_local()),
    ("verbs.command", |s| command(s).boxed_local()),
];

/// The exit code of a call, and when that is the one.
fn exits(output: &Output, code: i32, when: &str) -> Verdict {
    let how = output.shown();
    ensure!(
        output.code == Some(code),
        "{when}, which is exit code {code}: {how}"
    );
    Ok(())
}

async fn default(scene: Scene<'_>) -> Verdict {
    let config = scene.config_file("config.json", &scene.subject.start_config())?;
    let mut command = scene.bare();
    command
        .args(["--name", INSTANCE, "--events", "all", "--run-dir"])
        .arg(scene.run_dir())
        .arg("-c")
        .arg(config)
        .args(&scene.subject.flags);
    let mut running = scene.spawn(command)?;
    running.ready().await?;
    running.stop().await.map(drop)
}

async fn usage(scene: Scene<'_>) -> Verdict {
    for args in [
        ["--no-such-flag", "x"],
        ["--name", "../elsewhere"],
        ["--name", ""],
        ["--events", "some"],
    ] {
        let mut command = scene.bare();
        command
            .args(["run", "--run-dir"])
            .arg(scene.run_dir())
            .args(args);
        let output = scene.output(command).await?;
        let right = output.code == Some(2) && output.stdout.is_empty() && !output.stderr.is_empty();
        let (how, stdout) = (output.shown(), shown(&output.stdout));
        ensure!(right, "{args:?}: {how}; stdout: {stdout}");
    }
    Ok(())
}

async fn wait(scene: Scene<'_>) -> Verdict {
    let empty = scene.another().await?;
    let mut running = scene.listed()?;
    let (absent, late, ready) = tokio::join!(
        empty.call("wait", &[]),
        empty.call("wait", &["--timeout", "0.2"]),
        scene.call("wait", &[])
    );
    let (absent, ready) = (absent?, ready?);
    exits(&ready, 0, "it was started together with `run`")?;
    exits(&late?, 7, "with --timeout 0.2 nobody runs it")?;
    exits(&absent, 4, "nobody runs it for 10 s")?;
    let took = absent.took;
    let in_time = took < Duration::from_secs(20);
    ensure!(
        in_time,
        "nobody runs it, which it has to say after 10 s: {took:?}"
    );
    let is_there = scene.outputs_file().is_some();
    ensure!(
        is_there,
        "`wait` returned 0 before the outputs file was there"
    );
    running.stop().await.map(drop)
}

async fn check(scene: Scene<'_>) -> Verdict {
    exits(&scene.call("check", &[]).await?, 5, "nobody runs it")?;
    let mut running = scene.ready().await?;
    exits(&scene.call("check", &[]).await?, 0, "it runs and is ready")?;
    running.signal(Signal::KILL);
    running.ended(SOON).await?;
    exits(&scene.call("check", &[]).await?, 5, "it was killed")
}

async fn preflight(scene: Scene<'_>) -> Verdict {
    let mut running = scene.ready().await?;
    let command = scene.configured("check", &["--preflight", "--events", "all"])?;
    let before = scene.files();
    let mut looking = scene.spawn(command)?;
    let status = looking.end_within(scene.subject.patience).await?;
    let messages = only_messages(&looking)?;
    let checks: Vec<_> = messages.iter().filter(|m| m["type"] == "check").collect();
    let ids: BTreeSet<&str> = checks.iter().filter_map(|c| c["id"].as_str()).collect();
    ensure!(ids.len() == checks.len(), "two checks have the same `id`");
    let expected = match checks.iter().any(|c| c["status"] == "failed") {
        true => 5,
        false => 0,
    };
    let (code, state) = (status.code(), looking.state());
    ensure!(
        code == Some(expected),
        "beside a run, it ended with {status} and not {expected}{state}"
    );
    scene.no_new_file(&before)?;
    running.stop().await.map(drop)
}

async fn once(scene: Scene<'_>) -> Verdict {
    let mut running = scene.spawn(scene.configured("once", &["--events", "all"])?)?;
    let status = running.end_within(scene.subject.patience).await?;
    let messages = only_messages(&running)?;
    let found = messages.iter().any(|m| m["type"] == "outputs");
    let refused = fatal(&messages).is_some();
    let right = match status.code() {
        Some(0) => found,
        Some(2) => refused,
        _ => false,
    };
    let state = running.state();
    ensure!(
        right,
        "it ended with {status}; outputs: {found}, fatal error: {refused}{state}"
    );
    scene.no_process_is_left().await
}

async fn cleanup(scene: Scene<'_>) -> Verdict {
    exits(&scene.call("cleanup", &[]).await?, 0, "nothing ever ran")?;
    let mut running = scene.ready().await?;
    running.signal(Signal::KILL);
    running.ended(SOON).await?;
    let before = scene.outputs_file();
    let look = scene.call("cleanup", &["--dry-run"]).await?;
    // A stage may lack it.
    ensure!(
        matches!(look.code, Some(0 | 2)),
        "with --dry-run: {}",
        look.shown()
    );
    let same = scene.outputs_file() == before;
    ensure!(same, "cleanup --dry-run changed the outputs file");
    for time in ["first", "second"] {
        let output = scene.call("cleanup", &[]).await?;
        exits(&output, 0, &format!("it is the {time} time after a kill"))?;
    }
    let is_gone = scene.outputs_file().is_none();
    ensure!(is_gone, "the outputs file of the dead run is still there");
    Ok(())
}

async fn command(scene: Scene<'_>) -> Verdict {
    let script =
        format!("test -f \"$DEVCLUSTER_RUN_DIR/outputs/{INSTANCE}.json\" && echo out && exit 7");
    let mut running = scene.spawn(scene.configured("run", &["--", "sh", "-c", &script])?)?;
    let status = running.end_within(scene.subject.patience).await?;
    let stdout = running.stdout.bytes();
    let (code, state) = (status.code(), running.state());
    ensure!(
        code == Some(7),
        "the command ends with 7, and it with {status}{state}"
    );
    ensure!(
        stdout == b"out\n",
        "stdout is the command's alone: {}",
        shown(&stdout)
    );
    scene.no_process_is_left().await
}
