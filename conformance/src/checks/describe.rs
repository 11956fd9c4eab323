//! Checks of `describe`.

use super::prelude::*;

const QUICK: Duration = Duration::from_secs(1);

checks! {
    "describe.valid" => valid; WithoutReady,
    "describe.quick" => quick; WithoutReady,
    "describe.no_side_effects" => no_side_effects; WithoutReady,
}

async fn valid(scene: Scene<'_>) -> Verdict {
    let output = scene.call("describe", &[]).await?;
    output.exits(0, "describe")?;
    let said: Value = serde_json::from_slice(&output.stdout)
        .map_err(|e| anyhow!("not one JSON object: {e}: {}", shown(&output.stdout)))?;
    let version = &said["dcs"];
    ensure!(version == 1, "`dcs` is {version}, and must be 1");
    for field in ["kind", "version", "about"] {
        let text = &said[field];
        let is_text = text.as_str().is_some_and(|t| !t.is_empty());
        ensure!(is_text, "`{field}` is {text}, and must be a text");
    }
    let needed: &[&str] = match scene.subject.is_stage() {
        true => &["describe", "run", "once", "wait", "check", "cleanup"],
        false => &["describe", "run"],
    };
    let verbs = said["verbs"].as_array().cloned().unwrap_or_default();
    for verb in needed {
        let listed = verbs.iter().any(|v| v == verb);
        ensure!(listed, "`verbs` does not list `{verb}`: {}", said["verbs"]);
    }
    for field in ["config", "outputs"] {
        let schema = &said[field];
        ensure!(
            schema.is_object(),
            "`{field}` is {schema}, and must be a JSON Schema"
        );
        jsonschema::meta::validate(schema)
            .map_err(|e| anyhow!("`{field}` is not a valid JSON Schema: {e}"))?;
    }
    Ok(())
}

async fn quick(scene: Scene<'_>) -> Verdict {
    let took = scene.call("describe", &[]).await?.took;
    ensure!(took < QUICK, "it took {:.1} s", took.as_secs_f32());
    Ok(())
}

async fn no_side_effects(scene: Scene<'_>) -> Verdict {
    let before = scene.files();
    let output = scene.call("describe", &[]).await?;
    scene.no_new_file(&before)?;
    scene.no_process_is_left().await?;
    let Some(mut alone) = without_network(&scene).await? else {
        return Ok(());
    };
    alone.args(&scene.subject.program).arg("describe");
    let unplugged = scene.output(alone).await?;
    // The order of keys does not matter.
    let read = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).context("no JSON");
    unplugged.exits(0, "without a network")?;
    let same = read(&unplugged.stdout)? == read(&output.stdout)?;
    ensure!(same, "without a network its output differs");
    Ok(())
}

/// Runs a program without a network, if this machine can.
async fn without_network(scene: &Scene<'_>) -> Result<Option<Command>> {
    let unshare = || {
        let mut command = scene.program("unshare");
        command.args(["--user", "--map-root-user", "--net", "--"]);
        command
    };
    let mut attempt = unshare();
    attempt.arg("true");
    let works = scene
        .output(attempt)
        .await
        .is_ok_and(|o| o.status.success());
    Ok(works.then(unshare))
}
