//! The whole way, as a stage of stock devcluster.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::FutureExt;
use protocol::rundir::RunDir;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::running::{Input, Running, Streams};
use crate::scene::{Scene, eventually};
use crate::subject::{INSTANCE, Subject};
use crate::verdict::{Finding, Verdict, demand, failed, skipped};
use crate::{Check, Level};

/// devcluster itself has to be loaded, and polls.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) const CHECKS: &[Check] = &[Check {
    id: "devcluster.end_to_end",
    level: Level::Plugin,
    title: "as a stage of stock devcluster it comes up, is restarted, and goes; a plugin under its host",
    section: "under-stock-devcluster",
    run: |s| end_to_end(s).boxed_local(),
}];

async fn end_to_end(subject: &Subject) -> Verdict {
    let Some(devcluster) = &subject.devcluster else {
        return skipped(
            "there is no devcluster to run it under",
            "pipx install devcluster==1.3.2, or name one with --devcluster",
        );
    };
    let scene = Scene::new(subject)?;
    let after = scene.home().join("after");
    let file = scene.config_file("devcluster.yaml", &devcluster_yaml(&scene, &after)?)?;
    let mut command = scene.program(devcluster);
    command.arg("--quiet").arg("-c").arg(file);
    let mut running = Running::spawn(
        &scene,
        command,
        Streams {
            stdin: Input::Null,
            closed: None,
        },
    )?;
    let log =
        |running: &Running| format!("\n{}\n{}", tail(&running.stdout.text()), running.state());
    if eventually(subject.patience + PATIENCE, || after.exists().then_some(()))
        .await
        .is_none()
    {
        return failed(format!(
            "devcluster did not see that it is ready, and starts no later stage{}",
            log(&running)
        ));
    }
    let Some(first) = live_run(&scene) else {
        return failed(format!(
            "devcluster took it for ready, and it is not{}",
            log(&running)
        ));
    };
    let outputs = scene.outputs_file().unwrap_or_default();
    let ports = scene.ports(&outputs["outputs"]);
    let socket = scene.home().join("devcluster/sock");
    match timeout(subject.patience + PATIENCE, restart(&socket)).await {
        Ok(restarted) => restarted?,
        Err(_) => {
            let what = "restarted by devcluster it does not become ready again";
            return failed(format!("{what}{}", log(&running)));
        }
    }
    let second = live_run(&scene);
    demand(second.as_ref().is_some_and(|run| *run != first), || {
        format!(
            "after a restart run {first} is followed by {second:?}{}",
            log(&running)
        )
    })?;
    running.signal(Signal::TERM);
    let (status, _) = running.ended(PATIENCE).await?;
    demand(status.success(), || {
        format!("devcluster ended with {status}{}", log(&running))
    })?;
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
        RunDir::open(&scene.run_dir())
            .ok()?
            .live_outputs(INSTANCE)?
            .run,
    )
}

fn devcluster_yaml(scene: &Scene, after: &Path) -> Result<Value, Finding> {
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
fn command(scene: &Scene) -> Result<Vec<String>, Finding> {
    let subject = scene.subject;
    let instance = [
        "run".to_owned(),
        format!("--name={INSTANCE}"),
        format!("--run-dir={}", scene.run_dir().display()),
        "--events=all".to_owned(),
    ];
    let mut words = Vec::new();
    if subject.is_stage() {
        words.extend(
            subject
                .program
                .iter()
                .map(|w| w.to_string_lossy().into_owned()),
        );
        words.extend(instance);
        let config = scene.config_file("config.json", &subject.start_config())?;
        words.push(format!("--config={}", config.display()));
        words.extend(
            subject
                .flags
                .iter()
                .map(|w| w.to_string_lossy().into_owned()),
        );
    } else {
        let Some(driver) = &subject.driver else {
            return Err(Finding::Skipped(
                "there is no devcluster-remote to host it".into(),
                "make install".into(),
            ));
        };
        words.extend([driver.display().to_string(), "host".to_owned()]);
        words.extend(instance);
        let config = json!({"uses": one_program(scene)?, "with": subject.config});
        let config = scene.config_file("host.json", &config)?;
        words.push(format!("--config={}", config.display()));
    }
    Ok(words.into_iter().map(|w| w.replace('$', "$$")).collect())
}

/// A host runs one program; what is called with more words gets a script of its own.
fn one_program(scene: &Scene) -> Result<PathBuf, Finding> {
    let words = &scene.subject.program;
    if let [program] = words.as_slice() {
        return Ok(program.into());
    }
    let quoted = words
        .iter()
        .map(|w| format!("'{}'", w.to_string_lossy().replace('\'', r"'\''")));
    let script = format!(
        "#!/bin/sh\nexec {} \"$@\"\n",
        quoted.collect::<Vec<_>>().join(" ")
    );
    let path = scene.home().join("plugin");
    std::fs::write(&path, script)?;
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o700))?;
    Ok(path)
}

/// devcluster's number for a stage that is up.
const UP: u64 = 3;

/// Restarts the first stage, and returns once all are up again, by devcluster's own account. The connection is read to its
/// end: a client that does not read, or vanishes, kills devcluster.
async fn restart(socket: &Path) -> Result<(), Finding> {
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
