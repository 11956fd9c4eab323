//! A secret is nowhere to be seen.

use futures::FutureExt;
use serde_json::json;

use crate::scene::{SOON, Scene};
use crate::subject::Subject;
use crate::verdict::{Finding, Verdict, demand};
use crate::world;
use crate::{Check, Level};

pub(super) const CHECKS: &[Check] = &[Check {
    id: "secrets.nowhere",
    level: Level::Plugin,
    title: "no secret is in its output, in argv, in outputs, or in any file but one that `secrets` names",
    section: "secrets",
    run: |s| nowhere(s).boxed_local(),
}];

async fn nowhere(subject: &Subject) -> Verdict {
    let scene = Scene::new(subject)?;
    let mut running = scene.ready().await?;
    let seen = |place: String, bytes: &[u8]| absent(&scene, &place, bytes);
    for process in scene.processes() {
        seen(
            format!("the command line of process {}", process.pid),
            process.command.as_bytes(),
        )?;
    }
    let outputs = scene.outputs_file().unwrap_or_default();
    let secrets = outputs["secrets"].as_object().cloned().unwrap_or_default();
    for file in world::files(scene.home()) {
        if secrets.values().any(|path| path.as_str() == file.to_str()) {
            continue;
        }
        seen(
            format!("the file {}", file.display()),
            &std::fs::read(&file).unwrap_or_default(),
        )?;
    }
    running.stop().await?;
    seen("stdout".into(), &running.stdout.bytes())?;
    seen("stderr".into(), &running.stderr.bytes())?;
    for file in world::files(&scene.run_dir())
        .into_iter()
        .chain(world::files(&scene.home().join("state")))
    {
        seen(
            format!("the file {}", file.display()),
            &std::fs::read(&file).unwrap_or_default(),
        )?;
    }
    let mut refused = scene.hosted()?;
    let mut start = scene.start();
    start["config"]["no_such_field"] = json!(1);
    refused.tell(&start).await?;
    refused.ended(SOON).await?;
    refused.heard_out().await?;
    seen(
        "what it says of a wrong config on stdout".into(),
        &refused.stdout.bytes(),
    )?;
    seen(
        "what it says of a wrong config on stderr".into(),
        &refused.stderr.bytes(),
    )
}

fn absent(scene: &Scene, place: &str, bytes: &[u8]) -> Result<(), Finding> {
    let canary = scene.canary();
    let secret = std::iter::once(&canary)
        .chain(&scene.subject.secrets)
        .find(|s| world::contains(bytes, s.as_bytes()));
    demand(secret.is_none(), || match secret {
        Some(secret) if *secret == canary => {
            format!("{place} holds a secret that was in its environment")
        }
        _ => format!("{place} holds a secret of its config"),
    })
}
