//! Describes what a run does, stage by stage.

use protocol::kinds::is_ours;
use serde_json::Value;

use crate::input::CompiledInput;
use crate::plan::{NewStage, Plan};

/// One line per stage, in the order of start; the numbers are the keys of devcluster's console.
pub(crate) fn outline(input: &CompiledInput) -> String {
    let compiled = input.compiled.value();
    let items = compiled["stages"].as_array().into_iter().flatten();
    let lines: Vec<(String, String)> = items
        .filter_map(|item| item.as_object()?.iter().next())
        .map(|(kind, body)| {
            let name = body["name"].as_str().unwrap_or(kind).to_owned();
            let ours = input.compiled.plan.stages.iter().find(|s| s.name == name);
            let what = match ours.filter(|_| kind == "custom") {
                Some(stage) => describe_new(stage, &input.compiled.plan),
                None => describe_stock(kind, body, input),
            };
            (name, what)
        })
        .collect();
    let width = lines.iter().map(|(name, _)| name.chars().count()).max();
    let width = width.unwrap_or_default();
    let mut text = String::new();
    for (i, (name, what)) in lines.iter().enumerate() {
        text.push_str(&format!("  {} {name:width$}  {what}\n", i + 1));
    }
    text
}

fn describe_new(stage: &NewStage, plan: &Plan) -> String {
    let about = &plan.kinds[&stage.kind].description.about;
    let own = Some(stage.verdict.outline.as_str()).filter(|text| !text.is_empty());
    let what = own.unwrap_or_else(|| about.split(['.', ':']).next().unwrap_or_default());
    match stage.program.as_slice() {
        // Show the path of a program of another project.
        [program] if !is_ours(&stage.kind) => format!("{what} ({program})"),
        _ => what.to_owned(),
    }
}

/// The program that these words run. With `config-emit exec`, the program that it runs.
pub(crate) fn program_of(words: &Value) -> Option<&str> {
    let words: Vec<&str> = words.as_array()?.iter().filter_map(Value::as_str).collect();
    let is_exec = |word: &&str| *word == "exec";
    let ours =
        words.first()?.ends_with("devcluster-config-emit") && words.get(1).is_some_and(is_exec);
    match ours {
        true => words
            .iter()
            .skip_while(|word| **word != "--")
            .nth(1)
            .copied(),
        false => words.first().copied(),
    }
}

fn describe_stock(kind: &str, body: &Value, input: &CompiledInput) -> String {
    let words = match kind {
        "custom" => &body["cmd"],
        _ => &body["cmdline"],
    };
    let program = program_of(words).unwrap_or_default();
    match kind {
        "db" => "runs the database in docker".to_owned(),
        "elastic" | "custom_docker" => "runs in docker".to_owned(),
        _ if program.is_empty() => format!("runs devcluster's {kind}"),
        _ => {
            let name = body["name"].as_str().unwrap_or(kind);
            let waits = input.compiled.plan.consumers.iter().any(|c| c.name == name);
            let tail = if waits {
                ", with its rendered config"
            } else {
                ""
            };
            format!("runs {program}{tail}")
        }
    }
}
