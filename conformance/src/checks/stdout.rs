//! stdout is the wire and nothing else, whatever happens.

use std::path::Path;

use anyhow::{Result, bail, ensure};
use futures::FutureExt;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Map, Value, json};
use tokio::process::Command;

use super::Named;
use crate::harness::{Running, SOON, parse, shown};
use crate::scene::Scene;
use crate::subject::INSTANCE;
use crate::verdict::{Verdict, skipped};

pub(super) const CHECKS: &[Named] = &[
    ("stdout.lines", |s| lines(s).boxed_local()),
    ("stdout.one_write", |s| one_write(s).boxed_local()),
    ("stdout.unknown_config", |s| unknown_config(s).boxed_local()),
    ("stdout.bad_config", |s| bad_config(s).boxed_local()),
    ("stdout.bad_day", |s| bad_day(s).boxed_local()),
];

/// Whether everything on stdout is a message of this instance, to the last byte.
pub(super) fn only_messages(running: &Running) -> Result<Vec<Value>> {
    let mut messages = Vec::new();
    let mut length = 0;
    for line in running.stdout.lines() {
        let message = parse(&line)?;
        let name = &message["stage"];
        let right = name == INSTANCE;
        ensure!(
            right,
            "it was called with --name {INSTANCE} and speaks as {name}: {}",
            shown(&line)
        );
        length += line.len();
        messages.push(message);
    }
    let bytes = running.stdout.bytes();
    ensure!(
        bytes.len() == length,
        "half a line on stdout: {}",
        shown(&bytes[length..])
    );
    Ok(messages)
}

async fn lines(scene: Scene<'_>) -> Verdict {
    let mut running = scene.ready().await?;
    let status = running.stop().await?;
    let messages = only_messages(&running)?;
    let (Some(first), Some(last)) = (messages.first(), messages.last()) else {
        bail!("it says nothing");
    };
    ensure!(
        first["type"] == "hello",
        "the first message is not `hello` but {first}"
    );
    let id = first["run"].as_str().unwrap_or_default();
    let is_id = id.len() == 16 && id.bytes().all(|b| b.is_ascii_hexdigit());
    let run = &first["run"];
    ensure!(
        is_id,
        "the `run` of `hello` is {run}, and has to be 16 hex digits"
    );
    for message in messages.iter().filter(|m| m.get("run").is_some()) {
        ensure!(
            message["run"] == *run,
            "another `run` than in `hello`: {message}"
        );
    }
    ensure!(
        last["type"] == "result",
        "the last message is not `result` but {last}"
    );
    let exit = last["exit"].as_i64();
    let same = exit == status.code().map(i64::from);
    ensure!(same, "`result` says {last} and it ended with {status}");
    let again = scene.another().await?;
    let mut next = again.ready().await?;
    ensure!(
        next.last("hello")["run"] != *run,
        "two runs have the same `run`"
    );
    next.stop().await.map(drop)
}

async fn one_write(scene: Scene<'_>) -> Verdict {
    if !cfg!(target_os = "linux") {
        bail!(skipped(
            "this system does not show where a write ends",
            "check it on Linux"
        ));
    }
    let mut running = scene.ready().await?;
    running.stop().await?;
    let mut writes = running.stdout.writes().into_iter();
    match writes.find(|w| !w.ends_with(b"\n")) {
        Some(write) => bail!("a write that does not end a message: {}", shown(&write)),
        None => Ok(()),
    }
}

fn is_code(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"_-".contains(&b);
    let word = |w: &str| !w.is_empty() && w.bytes().all(allowed);
    text.contains('.') && text.split('.').all(word)
}

/// The first error that is fatal among the messages.
pub(super) fn fatal(messages: &[Value]) -> Option<&Value> {
    let errors = messages.iter().filter(|m| m["type"] == "error");
    errors.map(|m| &m["error"]).find(|e| e["fatal"] == true)
}

/// There is a fatal error, and it has what every error has.
fn says_why(messages: &[Value], running: &Running) -> Verdict {
    let Some(error) = fatal(messages) else {
        bail!("no `error` message that is fatal{}", running.state());
    };
    let code = &error["code"];
    let named = is_code(code.as_str().unwrap_or_default());
    ensure!(
        named,
        "the code {code} is not namespaced, like `vpn.refused`"
    );
    let told = error["message"].as_str().is_some_and(|m| !m.is_empty());
    ensure!(told, "an error without a message: {error}");
    Ok(())
}

async fn unknown_config(scene: Scene<'_>) -> Verdict {
    let mut running = scene.hosted()?;
    running.tell(&scene.with_unknown_field("start")).await?;
    let status = running.end_within(scene.subject.patience).await?;
    says_why(&only_messages(&running)?, &running)?;
    let (code, state) = (status.code(), running.state());
    ensure!(
        code == Some(2),
        "it ended with {code:?}, and a wrong config is exit code 2{state}"
    );
    Ok(())
}

async fn bad_config(scene: Scene<'_>) -> Verdict {
    let properties = scene.subject.description["config"]["properties"].as_object();
    let fields = properties.into_iter().flatten().map(|(field, _)| field);
    // An object in an array is of no field's type.
    let wrong: Map<String, Value> = fields
        .map(|field| (field.clone(), json!([{"no": [null]}])))
        .collect();
    let mut configs = vec![json!([1]), json!("text"), json!(7)];
    configs.extend((!wrong.is_empty()).then_some(Value::Object(wrong)));
    for config in configs {
        let scene = scene.another().await?;
        let mut running = scene.hosted()?;
        let start = json!({"dcs": 1, "type": "start", "config": config});
        running.tell(&start).await?;
        // A start that is none may be skipped, and another waited for.
        if running.stays(SOON / 10).await {
            running.close_stdin();
        }
        let status = running.end().await?;
        let messages = only_messages(&running)?;
        let is_ready = messages.iter().any(|m| m["type"] == "ready");
        ensure!(!is_ready, "it became ready with the config {config}");
        let state = running.state();
        ensure!(
            status.code().is_some(),
            "it crashed ({status}) on the config {config}{state}"
        );
        if !status.success() {
            says_why(&messages, &running)?;
        }
    }
    Ok(())
}

async fn bad_day(scene: Scene<'_>) -> Verdict {
    type Spoil = fn(&mut Command, &Path);
    let days: [(&str, Spoil); 3] = [
        ("without a temporary directory", |command, _| {
            command.env("TMPDIR", "/nonexistent/dir");
        }),
        (
            "with a run directory that cannot be made",
            |command, home| {
                command.arg("--run-dir").arg(home.join("file/run"));
            },
        ),
        ("with few descriptors", |command, _| {
            limit_descriptors(command, 12)
        }),
    ];
    for (what, spoil) in days {
        let scene = scene.another().await?;
        std::fs::write(scene.home().join("file"), "")?;
        let mut command = scene.bare();
        command.args(["run", "--stdin", "control", "--name", INSTANCE]);
        if !what.contains("run directory") {
            command.arg("--run-dir").arg(scene.run_dir());
        }
        command.args(&scene.subject.flags);
        spoil(&mut command, scene.home());
        let mut running = scene.spawn_hosted(command)?;
        running.tell(&scene.start()).await?;
        let decided = running.decided().await;
        running.close_stdin();
        let state = running.state();
        let status = running.end().await?;
        only_messages(&running)?;
        // Where not even the program can be loaded there is nobody to say why.
        let spoke = decided.is_ok() || !running.stderr.text().is_empty();
        ensure!(spoke && status.code().is_some(), "{what}: {status}{state}");
    }
    Ok(())
}

#[allow(
    unsafe_code,
    reason = "a limit of the child alone is set between fork and exec"
)]
fn limit_descriptors(command: &mut Command, limit: u64) {
    let set = move || {
        let limit = Rlimit {
            current: Some(limit),
            maximum: getrlimit(Resource::Nofile).maximum,
        };
        Ok(setrlimit(Resource::Nofile, limit)?)
    };
    // SAFETY: two plain system calls.
    unsafe {
        command.pre_exec(set);
    }
}
