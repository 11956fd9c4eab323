//! `describe` is what a host knows of a program before it runs it.

use std::time::Duration;

use futures::FutureExt;
use serde_json::Value;

use crate::scene::Scene;
use crate::subject::Subject;
use crate::verdict::{Verdict, demand, failed, shown};
use crate::{Check, Level};

const QUICK: Duration = Duration::from_secs(1);

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "describe.valid",
        level: Level::Plugin,
        title: "describe prints one description with every field and valid schemas",
        section: "describe",
        run: |s| valid(s).boxed_local(),
    },
    Check {
        id: "describe.quick",
        level: Level::Plugin,
        title: "describe takes less than a second",
        section: "describe",
        run: |s| quick(s).boxed_local(),
    },
    Check {
        id: "describe.no_side_effects",
        level: Level::Plugin,
        title: "describe writes no file, starts nothing that stays, and needs no network",
        section: "describe",
        run: |s| no_side_effects(s).boxed_local(),
    },
];

async fn valid(subject: &Subject) -> Verdict {
    let scene = Scene::new(subject)?;
    let output = scene.call("describe", &[]).await?;
    demand(output.code == Some(0), || output.shown())?;
    let said: Value = match serde_json::from_slice(&output.stdout) {
        Ok(said) => said,
        Err(e) => {
            return failed(format!(
                "not one JSON object: {e}: {}",
                shown(&output.stdout)
            ));
        }
    };
    demand(said["dcs"] == 1, || {
        format!("`dcs` is {}, and this is version 1", said["dcs"])
    })?;
    for field in ["kind", "version", "about"] {
        let text = said[field].as_str().unwrap_or_default();
        demand(!text.is_empty(), || {
            format!("`{field}` is {}, and has to be a text", said[field])
        })?;
    }
    let all = ["describe", "run", "once", "wait", "check", "cleanup"];
    let needed = if subject.is_stage() {
        &all[..]
    } else {
        &all[..2]
    };
    let verbs = said["verbs"].as_array().cloned().unwrap_or_default();
    for verb in needed {
        demand(verbs.iter().any(|v| v == verb), || {
            format!("`verbs` does not list `{verb}`: {}", said["verbs"])
        })?;
    }
    for field in ["config", "outputs"] {
        demand(said[field].is_object(), || {
            format!("`{field}` is {}, and has to be a JSON Schema", said[field])
        })?;
        if let Err(e) = jsonschema::meta::validate(&said[field]) {
            return failed(format!("`{field}` is no valid JSON Schema: {e}"));
        }
    }
    Ok(())
}

async fn quick(subject: &Subject) -> Verdict {
    let mut best = Duration::MAX;
    for _ in 0..3 {
        let scene = Scene::new(subject)?;
        best = best.min(scene.call("describe", &[]).await?.took);
        if best < QUICK {
            return Ok(());
        }
    }
    failed(format!("it took {} s, three times", best.as_secs_f32()))
}

async fn no_side_effects(subject: &Subject) -> Verdict {
    let scene = Scene::new(subject)?;
    let before = scene.files();
    let output = scene.call("describe", &[]).await?;
    if let Some(new) = scene.files().difference(&before).next() {
        return failed(format!("it wrote ~/{}", new.display()));
    }
    scene.no_process_is_left().await?;
    let Some(mut alone) = without_network(&scene).await? else {
        return Ok(());
    };
    alone.args(&subject.program).arg("describe");
    let unplugged = scene.output(alone).await?;
    // The order of keys is nobody's business.
    let read = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).ok();
    let same = read(&unplugged.stdout).is_some_and(|v| Some(v) == read(&output.stdout));
    demand(unplugged.code == Some(0) && same, || {
        let shown = unplugged.shown();
        format!("without a network it says something else: {shown}")
    })
}

/// A way to run a program where there is no network, if this machine has one.
async fn without_network(
    scene: &Scene<'_>,
) -> Result<Option<tokio::process::Command>, crate::verdict::Finding> {
    let unshare = || {
        let mut command = scene.program("unshare");
        command.args(["--user", "--map-root-user", "--net", "--"]);
        command
    };
    let mut attempt = unshare();
    attempt.arg("true");
    match scene.output(attempt).await {
        Ok(output) if output.code == Some(0) => Ok(Some(unshare())),
        _ => Ok(None),
    }
}
