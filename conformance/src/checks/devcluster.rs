//! Checks of a stage under stock devcluster.

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use protocol::devcluster::{is_up, restart};

use super::prelude::*;

/// devcluster needs time to start, and polls.
const PATIENCE: Duration = Duration::from_secs(30);

checks! {
    "devcluster.end_to_end" => end_to_end; Alone,
}

async fn end_to_end(scene: Scene<'_>) -> Verdict {
    let devcluster = scene.subject.devcluster.as_ref().ok_or_else(|| {
        let hint = "pipx install devcluster==1.3.2, or name one with --devcluster";
        skipped("devcluster is not installed", hint)
    })?;
    let after = scene.home().join("after");
    let file = scene.config_file("devcluster.yaml", &devcluster_yaml(&scene, &after)?)?;
    let mut command = scene.program(devcluster);
    command.arg("--quiet").arg("-c").arg(file);
    let mut running = Running::spawn(command)?;
    comes_and_goes(&scene, &mut running, &after)
        .await
        .with_context(|| format!("{}\n{}", tail(&running.stdout.text()), running.state()))
}

async fn comes_and_goes(scene: &Scene<'_>, running: &mut Running, after: &Path) -> Verdict {
    let patience = scene.subject.patience + PATIENCE;
    let starts_next = || after.exists().then_some(());
    let up = running.eventually(patience, starts_next).await;
    up.context("devcluster did not detect that it is ready, and starts no later stage")?;
    let first = live_run(scene).context("devcluster detected that it is ready, but it is not")?;
    let ports = scene.ports(&scene.outputs_file().unwrap_or_default()["outputs"]);
    let socket = scene.home().join("devcluster/sock");
    restart(&socket, &[INSTANCE.to_owned()], |_| ()).await?;
    let is_next = || live_run(scene).filter(|run| *run != first);
    let next = running.eventually(patience, is_next).await;
    next.context("it does not become ready again after a restart by devcluster")?;
    // devcluster crashes when it gets SIGTERM after it has read the line that it waits for and before it continues.
    let restarted = async {
        while !is_up(&socket, INSTANCE).await? {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        anyhow::Ok(())
    };
    let restarted = tokio::time::timeout(patience, restarted).await;
    restarted.context("devcluster does not detect that it is ready after the restart")??;
    running.signal(Signal::TERM);
    let ended = running.end_within(PATIENCE).await?;
    ended.exits(0, "devcluster after SIGTERM")?;
    scene.no_process_is_left().await?;
    scene.no_port_is_left(&ports).await
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

/// The run that is ready.
fn live_run(scene: &Scene) -> Option<String> {
    Some(
        scene
            .open_run_dir()
            .ok()?
            .live_outputs(INSTANCE)?
            .reported
            .run,
    )
}

fn devcluster_yaml(scene: &Scene, after: &Path) -> Result<Value> {
    let temp_dir = scene.home().join("devcluster");
    std::fs::create_dir(&temp_dir)?;
    let ready = format!(r#""type":"ready","stage":"{INSTANCE}""#);
    let script = format!("echo up > {}; exec sleep 600", after.display());
    Ok(json!({
        "temp_dir": temp_dir,
        "stages": [
            {"custom": {"name": INSTANCE, "cmd": command(scene)?, "kill_signal": "SIGTERM",
                        "post": [{"logcheck": {"regex": ready}}]}},
            {"custom": {"name": "after", "cmd": ["sh", "-c", script], "kill_signal": "SIGTERM"}},
        ],
    }))
}

/// Its words for a devcluster.yaml, in which `$` is doubled.
fn command(scene: &Scene) -> Result<Vec<String>> {
    let subject = scene.subject;
    let command = match subject.is_stage() {
        true => scene.configured("run", &["--events=all"])?,
        false => {
            let driver = subject.driver.as_ref();
            let driver = driver.ok_or_else(|| {
                skipped(
                    "devcluster-remote, which hosts it, is not installed",
                    "make install",
                )
            })?;
            let config = json!({"uses": one_program(scene)?, "with": subject.config});
            let config = scene.config_file("host.json", &config)?;
            let mut command = scene.program(driver);
            command
                .args([
                    "host",
                    "run",
                    "--events=all",
                    "--name",
                    INSTANCE,
                    "--run-dir",
                ])
                .arg(scene.run_dir())
                .arg("--config")
                .arg(config);
            command
        }
    };
    let command = command.as_std();
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    Ok(words
        .map(|w| w.to_string_lossy().replace('$', "$$"))
        .collect())
}

/// A script that runs all words: a host runs one program.
fn one_program(scene: &Scene) -> Result<PathBuf> {
    let quoted = |word: &OsString| format!("'{}'", word.to_string_lossy().replace('\'', r"'\''"));
    let words: Vec<String> = scene.subject.program.iter().map(quoted).collect();
    let words = words.join(" ");
    let path = scene.home().join("plugin");
    std::fs::write(&path, format!("#!/bin/sh\nexec {words} \"$@\"\n"))?;
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o700))?;
    Ok(path)
}
