//! Checks of `validate`. They pass for a program without this verb.

use protocol::validate::{Answer, pointer_from_path};
use protocol::yaml::Seg;
use serde_json::Map;

use super::prelude::*;
use crate::harness::Output;

checks! {
    "validate.problems" => problems; WithoutReady,
    "validate.unknown" => unknown; WithoutReady,
    "validate.offline" => offline; WithoutReady,
}

/// A value that is unknown before the run.
const UNKNOWN_VALUE: &str = "${{ other.value }}";

async fn ask(scene: &Scene<'_>, instances: &Value) -> Result<(Output, Answer)> {
    let mut command = scene.bare();
    command.arg("validate");
    let mut running = scene.spawn_hosted(command)?;
    let dir = scene.home();
    let request = json!({"dcs": 1, "type": "validate", "dir": dir, "instances": instances});
    running.write(request.to_string().as_bytes()).await?;
    running.close_stdin();
    let output = running.end_within(running.patience).await?;
    output.exits(0, "validate")?;
    let answer = serde_json::from_slice(&output.stdout)
        .map_err(|e| anyhow!("not an answer: {e}: {}", shown(&output.stdout)))?;
    Ok((output, answer))
}

fn instance(name: &str, config: &Map<String, Value>, unknown: &[String]) -> Value {
    json!({"stage": name, "config": config, "unknown": unknown})
}

async fn problems(scene: Scene<'_>) -> Verdict {
    if !scene.subject.has("validate") {
        return Ok(());
    }
    let right = scene.subject.config.clone();
    let mut wrong = right.clone();
    wrong.insert("no_such_field".to_owned(), 1.into());
    let open = unknown_of(&right);
    let asked = json!([
        instance("right", &right, &open),
        instance("wrong", &wrong, &open)
    ]);
    let (_, answer) = ask(&scene, &asked).await?;
    let names: Vec<&str> = answer.instances.iter().map(|v| v.stage.as_str()).collect();
    ensure!(
        names == ["right", "wrong"],
        "the verdicts are for {names:?}, and must be for right and wrong"
    );
    let [right, wrong] = [&answer.instances[0], &answer.instances[1]];
    ensure!(
        right.problems.is_empty(),
        "a valid config has problems: {:?}",
        right.problems
    );
    ensure!(
        !wrong.problems.is_empty(),
        "an unknown field causes no problem"
    );
    Ok(())
}

/// The variables in the config of the subject are unknown too.
fn unknown_of(config: &Map<String, Value>) -> Vec<String> {
    let texts = config
        .iter()
        .filter(|(_, v)| v.as_str().is_some_and(|t| t.contains('$')));
    texts.map(|(field, _)| format!("/{field}")).collect()
}

async fn unknown(scene: Scene<'_>) -> Verdict {
    if !scene.subject.has("validate") {
        return Ok(());
    }
    let mut tried = Vec::new();
    let schema = &scene.subject.description["config"];
    each_scalar(schema, &mut Vec::new(), &mut tried);
    let asked = tried.iter().enumerate().map(|(i, path)| {
        let mut config = Value::Object(scene.subject.config.clone());
        put(&mut config, path);
        let config = config.as_object().cloned().unwrap_or_default();
        let mut open = unknown_of(&config);
        open.push(pointer_from_path(path));
        instance(&format!("i{i}"), &config, &open)
    });
    let asked: Vec<Value> = asked.collect();
    let (_, answer) = ask(&scene, &asked.into()).await?;
    ensure!(
        answer.instances.len() == tried.len(),
        "{} verdicts for {} instances",
        answer.instances.len(),
        tried.len()
    );
    for (path, verdict) in tried.iter().zip(&answer.instances) {
        let pointer = pointer_from_path(path);
        let mut problems = verdict.problems.iter();
        let wrong = problems.find(|p| p.path.starts_with(&pointer));
        ensure!(
            wrong.is_none(),
            "{pointer} is unknown, and causes a problem: {wrong:?}"
        );
        let effective = serde_json::to_string(&verdict.effective)?;
        ensure!(
            !effective.contains(UNKNOWN_VALUE),
            "{pointer} is unknown, and is in `effective`: {effective}"
        );
    }
    Ok(())
}

/// The paths of all single values in a config, with the first item of each list.
fn each_scalar(schema: &Value, path: &mut Vec<Seg>, found: &mut Vec<Vec<Seg>>) {
    let mut deeper = false;
    for variant in std::iter::once(schema).chain(schema["anyOf"].as_array().into_iter().flatten()) {
        for (key, property) in variant["properties"].as_object().into_iter().flatten() {
            deeper = true;
            path.push(key.as_str().into());
            each_scalar(property, path, found);
            path.pop();
        }
        if variant["items"].is_object() && path.len() < 4 {
            deeper = true;
            path.push(0.into());
            each_scalar(&variant["items"], path, found);
            path.pop();
        }
    }
    if !deeper && !path.is_empty() {
        found.push(path.clone());
    }
}

/// Sets an unknown value.
fn put(at: &mut Value, path: &[Seg]) {
    match path.split_first() {
        None => *at = UNKNOWN_VALUE.into(),
        Some((Seg::Key(key), rest)) => {
            if !at.is_object() {
                *at = json!({});
            }
            put(&mut at[key.as_str()], rest);
        }
        Some((Seg::Index(_), rest)) => {
            *at = json!([null]);
            put(&mut at[0], rest);
        }
    }
}

async fn offline(scene: Scene<'_>) -> Verdict {
    if !scene.subject.has("validate") {
        return Ok(());
    }
    let before = scene.files();
    let config = &scene.subject.config;
    let right = instance("right", config, &unknown_of(config));
    ask(&scene, &json!([right])).await?;
    scene.no_new_file(&before)?;
    scene.no_process_is_left().await
}
