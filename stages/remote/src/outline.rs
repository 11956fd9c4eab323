//! What a run is going to do, stage by stage, in words.

use protocol::Env;
use serde_json::Value;

use crate::input::Job;
use crate::plan::{Kind, NewStage};

/// A line for each stage, in the order in which devcluster starts them; the numbers are the keys of its console.
pub(crate) fn outline(job: &Job, env: &Env) -> String {
    let compiled = job.compiled.value();
    let items = compiled["stages"].as_array().into_iter().flatten();
    let lines: Vec<(String, String)> = items
        .filter_map(|item| item.as_object()?.iter().next())
        .map(|(kind, body)| {
            let name = body["name"].as_str().unwrap_or(kind).to_owned();
            let ours = job.compiled.plan.stages.iter().find(|s| s.name == name);
            let what = match ours.filter(|_| kind == "custom") {
                Some(stage) => of_ours(stage, job, env),
                None => of_stock(kind, body, job),
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

fn of_ours(stage: &NewStage, job: &Job, env: &Env) -> String {
    let field = |name: &str| match stage.config.get(name) {
        Some(Value::String(text)) => Some(env.expand(text)),
        Some(Value::Array(ends)) => {
            let ends: Vec<_> = ends.iter().map(Value::to_string).collect();
            Some(ends.join("-"))
        }
        Some(Value::Null) | None => None,
        Some(other) => Some(other.to_string()),
    };
    match stage.kind {
        Kind::Tunnel => {
            let host = field("reverse_proxy_host").unwrap_or_default();
            let ports = field("remote_port_range").unwrap_or_else(|| "8000-9000".to_owned());
            let to = field("local_port").unwrap_or_else(|| "8080".to_owned());
            format!("has {host} pass one of its ports {ports} on to port {to} here, for pods")
        }
        Kind::Gateway => {
            let context = field("k8s_context").map_or_else(
                || "the current context".to_owned(),
                |c| format!("context {c}"),
            );
            match field("gateway") {
                Some(gateway) => format!("holds Gateway {gateway} in {context}, for the master"),
                None => format!("holds a Gateway in {context}, or makes one, for the master"),
            }
        }
        Kind::ConfigEmit => {
            let consumers = job.compiled.plan.consumers.iter();
            let consumer = consumers.into_iter().find(|c| c.emit == stage.name);
            consumer.map_or_else(String::new, |consumer| {
                let sources = match consumer.upstreams.is_empty() {
                    true => "nobody".to_owned(),
                    false => consumer.upstreams.join(" and "),
                };
                format!(
                    "writes what {sources} found out into the config of {}",
                    consumer.name
                )
            })
        }
        Kind::Plugin => format!("hosts {}", field("uses").unwrap_or_default()),
    }
}

/// The program that these words run; where values are put into them first, the one that runs after that.
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

fn of_stock(kind: &str, body: &Value, job: &Job) -> String {
    let words = match kind {
        "custom" => &body["cmd"],
        _ => &body["cmdline"],
    };
    let program = program_of(words).unwrap_or_default();
    match kind {
        "db" => "the database, in docker".to_owned(),
        "elastic" | "custom_docker" => "runs in docker".to_owned(),
        _ if program.is_empty() => format!("devcluster's {kind}"),
        _ => {
            let name = body["name"].as_str().unwrap_or(kind);
            let waits = job.compiled.plan.consumers.iter().any(|c| c.name == name);
            let tail = if waits {
                ", with the config that was written for it"
            } else {
                ""
            };
            format!("runs {program}{tail}")
        }
    }
}
