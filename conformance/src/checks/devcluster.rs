//! The whole way, as a stage of stock devcluster.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::FutureExt;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

use super::Named;
use crate::harness::{Running, machine, within};
use crate::scene::Scene;
use crate::subject::INSTANCE;
use crate::verdict::{Verdict, skipped};

/// devcluster itself has to be loaded, and polls.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) const CHECKS: &[Named] = &[("devcluster.end_to_end", |s| end_to_end(s).boxed_local())];

async fn end_to_end(scene: Scene<'_>) -> Verdict {
    let devcluster = scene.subject.devcluster.as_ref().ok_or_else(|| {
        let hint = "pipx install devcluster==1.3.2, or name one with --devcluster";
        skipped("there is no devcluster to run it under", hint)
    })?;
    if let Some(why) = scene.subject.in_vain.clone() {
        return Err(why.into());
    }
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
    let is_up = || after.exists().then_some(());
    let up = running.eventually(patience, is_up).await;
    up.context("devcluster did not see that it is ready, and starts no later stage")?;
    let first = live_run(scene).context("devcluster took it for ready, and it is not")?;
    let ports = scene.ports(&scene.outputs_file().unwrap_or_default()["outputs"]);
    let (root, socket) = (running.pid(), scene.home().join("devcluster/sock"));
    let (_, restarted) = within(patience, || machine::tree(root), restart(&socket)).await;
    restarted.context("restarted by devcluster it does not become ready again")??;
    let second = live_run(scene);
    let is_new = second.as_ref().is_some_and(|run| *run != first);
    ensure!(
        is_new,
        "after a restart run {first} is followed by {second:?}"
    );
    running.signal(Signal::TERM);
    let (status, _) = running.ended(PATIENCE).await?;
    ensure!(status.success(), "devcluster ended with {status}");
    scene.no_process_is_left().await?;
    scene.no_port_is_left(&ports).await
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

/// The run that is ready.
fn live_run(scene: &Scene) -> Option<String> {
    Some(scene.open_run_dir().ok()?.live_outputs(INSTANCE)?.run)
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

/// Its words, as they stand in a devcluster.yaml, where `$` has to be doubled.
fn command(scene: &Scene) -> Result<Vec<String>> {
    let subject = scene.subject;
    let command = match subject.is_stage() {
        true => scene.configured("run", &["--events=all"])?,
        false => {
            let driver = subject.driver.as_ref();
            let driver = driver.ok_or_else(|| {
                skipped("there is no devcluster-remote to host it", "make install")
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

/// A host runs one program; what is called with more words gets a script of its own.
fn one_program(scene: &Scene) -> Result<PathBuf> {
    let words = &scene.subject.program;
    if let [program] = words.as_slice() {
        return Ok(program.into());
    }
    let quoted = words
        .iter()
        .map(|w| format!("'{}'", w.to_string_lossy().replace('\'', r"'\''")));
    let words = quoted.collect::<Vec<_>>().join(" ");
    let path = scene.home().join("plugin");
    std::fs::write(&path, format!("#!/bin/sh\nexec {words} \"$@\"\n"))?;
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o700))?;
    Ok(path)
}

/// devcluster's number for a stage that is up.
const UP: u64 = 3;

/// Restarts the first stage, and returns once all are up again, by devcluster's own account. The connection is read to its
/// end: a client that does not read, or vanishes, kills devcluster.
async fn restart(socket: &Path) -> Verdict {
    let (read, mut write) = UnixStream::connect(socket).await?.into_split();
    let mut lines = BufReader::new(read).lines();
    lines.next_line().await?;
    write.write_all(b"{\"restart_stage\": 1}\n").await?;
    let mut went_down = false;
    while let Some(line) = lines.next_line().await? {
        let message: Value = serde_json::from_str(&line).unwrap_or_default();
        let Some(stages) = message["status_cb"]["stages"].as_array() else {
            continue;
        };
        let up = stages.iter().rev().take(2).all(|s| *s == UP);
        went_down |= !up;
        if went_down && up {
            break;
        }
    }
    write.shutdown().await?;
    while lines.next_line().await?.is_some() {}
    Ok(())
}
