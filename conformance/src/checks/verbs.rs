//! The verbs and the command line of a full stage.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::FutureExt;

use crate::running::{Input, Running, Streams};
use crate::scene::{SOON, Scene};
use crate::subject::{INSTANCE, Subject};
use crate::verdict::{Verdict, demand, failed, shown};
use crate::{Check, Level};

use super::stdout::only_messages;

const SECTION: &str = "verbs";

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "verbs.default",
        level: Level::Stage,
        title: "without a verb, run is meant",
        section: SECTION,
        run: |s| default(s).boxed_local(),
    },
    Check {
        id: "verbs.usage",
        level: Level::Stage,
        title: "a command line that cannot be understood is exit 2, with nothing on stdout",
        section: "exit-codes",
        run: |s| usage(s).boxed_local(),
    },
    Check {
        id: "verbs.wait",
        level: Level::Stage,
        title: "wait: 0 when ready, 4 when nobody runs it, 7 after --timeout",
        section: SECTION,
        run: |s| wait(s).boxed_local(),
    },
    Check {
        id: "verbs.check",
        level: Level::Stage,
        title: "check: 0 while what was reported holds, 5 when it does not",
        section: SECTION,
        run: |s| check(s).boxed_local(),
    },
    Check {
        id: "verbs.preflight",
        level: Level::Stage,
        title: "check --preflight says what is there, changes nothing, and takes no lock",
        section: "preflight",
        run: |s| preflight(s).boxed_local(),
    },
    Check {
        id: "verbs.once",
        level: Level::Stage,
        title: "once reports and leaves no process, or is refused with exit 2",
        section: SECTION,
        run: |s| once(s).boxed_local(),
    },
    Check {
        id: "verbs.cleanup",
        level: Level::Stage,
        title: "cleanup needs no config, can be repeated, and takes the outputs file away",
        section: "cleanup",
        run: |s| cleanup(s).boxed_local(),
    },
    Check {
        id: "verbs.command",
        level: Level::Stage,
        title: "-- command runs once ready, owns stdout, and its exit code is the stage's",
        section: "flags",
        run: |s| command(s).boxed_local(),
    },
];

async fn default(subject: &Subject) -> Verdict {
    let scene = Scene::new(subject)?;
    let words = &subject.program;
    let mut command = scene.program(&words[0]);
    let config = scene.config_file("config.json", &subject.start_config())?;
    command
        .args(&words[1..])
        .args(["--name", INSTANCE, "--events", "all", "--run-dir"])
        .arg(scene.run_dir());
    command.arg("-c").arg(config).args(&subject.flags);
    let mut running = Running::spawn(
        &scene,
        command,
        Streams {
            stdin: Input::Null,
            closed: None,
        },
    )?;
    running.ready().await?;
    running.stop().await.map(drop)
}

async fn usage(subject: &Subject) -> Verdict {
    for args in [
        ["--no-such-flag", "x"],
        ["--name", "../elsewhere"],
        ["--name", ""],
        ["--events", "some"],
    ] {
        let scene = Scene::new(subject)?;
        let mut command = scene.program(&subject.program[0]);
        command
            .args(&subject.program[1..])
            .arg("run")
            .arg("--run-dir")
            .arg(scene.run_dir())
            .args(args);
        let output = scene.output(command).await?;
        let right = output.code == Some(2) && output.stdout.is_empty() && !output.stderr.is_empty();
        demand(right, || {
            format!(
                "{args:?}: {}; stdout: {}",
                output.shown(),
                shown(&output.stdout)
            )
        })?;
    }
    Ok(())
}

async fn wait(subject: &Subject) -> Verdict {
    let (empty, scene) = (Scene::new(subject)?, Scene::new(subject)?);
    let mut running = scene.listed()?;
    let timed = ["--timeout", "0.2"];
    let (absent, late, ready) = tokio::join!(
        empty.call("wait", &[]),
        empty.call("wait", &timed),
        scene.call("wait", &[])
    );
    let (absent, late, ready) = (absent?, late?, ready?);
    demand(ready.code == Some(0), || {
        format!("started together with `run`: {}", ready.shown())
    })?;
    demand(late.code == Some(7), || {
        format!("--timeout 0.2, and nobody there: {}", late.shown())
    })?;
    let in_time = absent.took < Duration::from_secs(20);
    demand(absent.code == Some(4) && in_time, || {
        format!(
            "nobody runs it, which is exit code 4 after 10 s: {} after {:?}",
            absent.shown(),
            absent.took
        )
    })?;
    demand(scene.outputs_file().is_some(), || {
        "`wait` returned 0 before the outputs file was there".to_owned()
    })?;
    running.stop().await.map(drop)
}

async fn check(subject: &Subject) -> Verdict {
    let scene = Scene::new(subject)?;
    let before = scene.call("check", &[]).await?;
    demand(before.code == Some(5), || {
        format!("nobody runs it, which is exit code 5: {}", before.shown())
    })?;
    let mut running = scene.ready().await?;
    let during = scene.call("check", &[]).await?;
    demand(during.code == Some(0), || {
        format!("it runs and is ready: {}", during.shown())
    })?;
    running.kill(false);
    running.ended(SOON).await?;
    let after = scene.call("check", &[]).await?;
    demand(after.code == Some(5), || {
        format!("it was killed, which is exit code 5: {}", after.shown())
    })
}

async fn preflight(subject: &Subject) -> Verdict {
    let scene = Scene::new(subject)?;
    let mut running = scene.ready().await?;
    let file = scene.config_file("config.json", &subject.start_config())?;
    let before = scene.files();
    let mut command = scene.verb("check", &["--preflight", "--events", "all", "--config"]);
    command.arg(file);
    let streams = Streams {
        stdin: Input::Null,
        closed: None,
    };
    let mut looking = Running::spawn(&scene, command, streams)?;
    let (status, _) = looking.ended(subject.patience).await?;
    looking.heard_out().await?;
    let messages = only_messages(&looking.stdout)?;
    let checks: Vec<_> = messages.iter().filter(|m| m["type"] == "check").collect();
    let ids: BTreeSet<&str> = checks.iter().filter_map(|c| c["id"].as_str()).collect();
    demand(ids.len() == checks.len(), || {
        "two checks have the same `id`".to_owned()
    })?;
    let any_failed = checks.iter().any(|c| c["status"] == "failed");
    let expected = if any_failed { 5 } else { 0 };
    demand(status.code() == Some(expected), || {
        format!(
            "beside a run, it ended with {status} and not {expected}{}",
            looking.state()
        )
    })?;
    if let Some(new) = scene.files().difference(&before).next() {
        return failed(format!("it left ~/{}", new.display()));
    }
    running.stop().await.map(drop)
}

async fn once(subject: &Subject) -> Verdict {
    let scene = Scene::new(subject)?;
    let file = scene.config_file("config.json", &subject.start_config())?;
    let mut command = scene.verb("once", &["--events", "all", "-c"]);
    command.arg(file);
    let mut running = Running::spawn(
        &scene,
        command,
        Streams {
            stdin: Input::Null,
            closed: None,
        },
    )?;
    let (status, _) = running.ended(subject.patience).await?;
    running.heard_out().await?;
    let messages = only_messages(&running.stdout)?;
    let found = messages.iter().any(|m| m["type"] == "outputs");
    let refused = messages
        .iter()
        .any(|m| m["type"] == "error" && m["error"]["fatal"] == true);
    let right = match status.code() {
        Some(0) => found,
        Some(2) => refused,
        _ => false,
    };
    demand(right, || {
        format!(
            "it ended with {status}; outputs: {found}, fatal error: {refused}{}",
            running.state()
        )
    })?;
    scene.no_process_is_left().await
}

async fn cleanup(subject: &Subject) -> Verdict {
    let scene = Scene::new(subject)?;
    let fresh = scene.call("cleanup", &[]).await?;
    demand(fresh.code == Some(0), || {
        format!("where nothing ever ran: {}", fresh.shown())
    })?;
    let mut running = scene.ready().await?;
    running.kill(false);
    running.ended(SOON).await?;
    let before = scene.outputs_file();
    let look = scene.call("cleanup", &["--dry-run"]).await?;
    // A stage may lack it.
    demand(matches!(look.code, Some(0 | 2)), || {
        format!("with --dry-run: {}", look.shown())
    })?;
    demand(scene.outputs_file() == before, || {
        "cleanup --dry-run changed the outputs file".to_owned()
    })?;
    for time in ["first", "second"] {
        let output = scene.call("cleanup", &[]).await?;
        demand(output.code == Some(0), || {
            format!("the {time} time after a kill: {}", output.shown())
        })?;
    }
    demand(scene.outputs_file().is_none(), || {
        "the outputs file of the dead run is still there".to_owned()
    })
}

async fn command(subject: &Subject) -> Verdict {
    let scene = Scene::new(subject)?;
    let file = scene.config_file("config.json", &subject.start_config())?;
    let mut command = scene.verb("run", &["--config"]);
    let script =
        format!("test -f \"$DEVCLUSTER_RUN_DIR/outputs/{INSTANCE}.json\" && echo out && exit 7");
    command.arg(file).args(["--", "sh", "-c", &script]);
    let mut running = Running::spawn(
        &scene,
        command,
        Streams {
            stdin: Input::Null,
            closed: None,
        },
    )?;
    let (status, _) = running.ended(subject.patience).await?;
    running.heard_out().await?;
    let stdout = running.stdout.bytes();
    demand(status.code() == Some(7), || {
        format!(
            "the command ends with 7, and it with {status}{}",
            running.state()
        )
    })?;
    demand(stdout == b"out\n", || {
        format!("stdout is the command's alone: {}", shown(&stdout))
    })?;
    scene.no_process_is_left().await
}
