//! Checks of the verbs and the command line of a full stage.

use std::collections::BTreeSet;

use super::prelude::*;

checks! {
    "verbs.default" => default,
    "verbs.usage" => usage; WithoutReady,
    "verbs.wait" => wait,
    "verbs.check" => check,
    "verbs.preflight" => preflight,
    "verbs.once" => once,
    "verbs.cleanup" => cleanup,
    "verbs.command" => command,
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
        output.exits(2, &format!("{args:?}"))?;
        let stdout = &output.stdout;
        ensure!(
            stdout.is_empty(),
            "{args:?}: stdout contains {}",
            shown(stdout)
        );
        ensure!(
            !output.stderr.is_empty(),
            "{args:?}: it does not report why"
        );
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
    ready?.exits(0, "started together with `run`")?;
    late?.exits(7, "with --timeout 0.2, while it does not run")?;
    let absent = absent?;
    absent.exits(4, "it did not run for 10 s")?;
    let took = absent.took;
    let in_time = took < Duration::from_secs(20);
    ensure!(
        in_time,
        "it must report after 10 s that the instance does not run: {took:?}"
    );
    let is_there = scene.outputs_file().is_some();
    ensure!(
        is_there,
        "`wait` exited with 0 before the outputs file existed"
    );
    running.stop().await.map(drop)
}

async fn check(scene: Scene<'_>) -> Verdict {
    let says = async |code, case| scene.call("check", &[]).await?.exits(code, case);
    says(5, "it does not run").await?;
    let mut running = scene.ready().await?;
    says(0, "it runs and is ready").await?;
    running.end_by(Signal::KILL).await?;
    says(5, "it was killed").await
}

async fn preflight(scene: Scene<'_>) -> Verdict {
    let mut running = scene.ready().await?;
    let command = scene.configured("check", &["--preflight", "--events", "all"])?;
    let before = scene.files();
    let mut looking = scene.spawn(command)?;
    let ended = looking.end_within(looking.patience).await?;
    let messages = only_messages(&looking)?;
    let checks: Vec<_> = messages.iter().filter(|m| m["type"] == "check").collect();
    let ids: BTreeSet<&str> = checks.iter().filter_map(|c| c["id"].as_str()).collect();
    ensure!(ids.len() == checks.len(), "two checks have the same `id`");
    let expected = match checks.iter().any(|c| c["status"] == "failed") {
        true => 5,
        false => 0,
    };
    ended.exits(expected, "during a run")?;
    scene.no_new_file(&before)?;
    running.stop().await.map(drop)
}

async fn once(scene: Scene<'_>) -> Verdict {
    let mut running = scene.spawn(scene.configured("once", &["--events", "all"])?)?;
    let ended = running.end_within(running.patience).await?;
    let messages = only_messages(&running)?;
    let found = messages.iter().any(|m| m["type"] == "outputs");
    let refused = fatal(&messages).is_some();
    let right = match ended.status.code() {
        Some(0) => found,
        Some(2) => refused,
        _ => false,
    };
    let how = ended.shown();
    ensure!(right, "outputs: {found}, fatal error: {refused}; {how}");
    scene.no_process_is_left().await
}

async fn cleanup(scene: Scene<'_>) -> Verdict {
    let says = async |case| scene.call("cleanup", &[]).await?.exits(0, case);
    says("it never ran").await?;
    let mut running = scene.ready().await?;
    running.end_by(Signal::KILL).await?;
    let before = scene.outputs_file();
    let look = scene.call("cleanup", &["--dry-run"]).await?;
    // A stage may lack it.
    let right = matches!(look.status.code(), Some(0 | 2));
    ensure!(right, "with --dry-run: {}", look.shown());
    let same = scene.outputs_file() == before;
    ensure!(same, "cleanup --dry-run changed the outputs file");
    let keep = scene.call("cleanup", &["--keep"]).await?;
    keep.exits(0, "with --keep")?;
    says("the first time after a kill").await?;
    says("the second time after a kill").await?;
    let is_gone = scene.outputs_file().is_none();
    ensure!(is_gone, "the outputs file of the dead run still exists");
    Ok(())
}

async fn command(scene: Scene<'_>) -> Verdict {
    let script =
        format!("test -f \"$DEVCLUSTER_RUN_DIR/outputs/{INSTANCE}.json\" && echo out && exit 7");
    let mut running = scene.spawn(scene.configured("run", &["--", "sh", "-c", &script])?)?;
    let ended = running.end_within(running.patience).await?;
    ended.exits(7, "the command ends with 7")?;
    let stdout = ended.stdout;
    ensure!(
        stdout == b"out\n",
        "stdout must contain only the output of the command: {}",
        shown(&stdout)
    );
    scene.no_process_is_left().await
}
