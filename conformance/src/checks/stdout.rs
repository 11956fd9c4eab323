//! Checks that stdout contains only messages.

use std::path::Path;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::Map;

use super::prelude::*;
use crate::harness::parse;

checks! {
    "stdout.lines" => lines,
    "stdout.one_write" => one_write,
    "stdout.unknown_config" => unknown_config; WithoutReady,
    "stdout.bad_config" => bad_config; WithoutReady,
    "stdout.bad_day" => bad_day,
}

/// Checks that all of stdout is messages of this instance.
pub(super) fn only_messages(running: &Running) -> Result<Vec<Value>> {
    let mut messages = Vec::new();
    let mut length = 0;
    for line in running.stdout.lines() {
        let message = parse(&line)?;
        let name = &message["stage"];
        let right = name == INSTANCE;
        ensure!(
            right,
            "it was called with --name {INSTANCE} and names itself {name}: {}",
            shown(&line)
        );
        length += line.len();
        messages.push(message);
    }
    let bytes = running.stdout.bytes();
    ensure!(
        bytes.len() == length,
        "an unfinished line on stdout: {}",
        shown(&bytes[length..])
    );
    Ok(messages)
}

async fn lines(scene: Scene<'_>) -> Verdict {
    let mut running = scene.ready().await?;
    let status = running.stop().await?.status;
    let messages = only_messages(&running)?;
    let (Some(first), Some(last)) = (messages.first(), messages.last()) else {
        bail!("stdout is empty");
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
        "the `run` of `hello` is {run}, and must be 16 hex digits"
    );
    for message in messages.iter().filter(|m| m.get("run").is_some()) {
        agree("run", [("`hello`", first), ("another message", message)])?;
    }
    ensure!(
        last["type"] == "result",
        "the last message is not `result` but {last}"
    );
    let exit = last["exit"].as_i64();
    let same = exit == status.code().map(i64::from);
    ensure!(same, "`result` is {last}, and it ended with {status}");
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
            "this system does not keep the boundaries of writes",
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

/// Checks that a field of two messages is equal.
pub(super) fn agree(key: &str, messages: [(&str, &Value); 2]) -> Verdict {
    let [(one, a), (other, b)] = messages.map(|(name, message)| (name, &message[key]));
    ensure!(a == b, "`{key}` is {a} in {one} and {b} in {other}");
    Ok(())
}

/// The first fatal error of the messages.
pub(super) fn fatal(messages: &[Value]) -> Option<&Value> {
    let errors = messages.iter().filter(|m| m["type"] == "error");
    errors.map(|m| &m["error"]).find(|e| e["fatal"] == true)
}

/// Checks that there is a fatal error with all required fields.
fn says_why(messages: &[Value], running: &Running) -> Verdict {
    let Some(error) = fatal(messages) else {
        bail!("no fatal `error` message{}", running.state());
    };
    let code = &error["code"];
    let named = is_code(code.as_str().unwrap_or_default());
    ensure!(
        named,
        "the code {code} has no namespace, as `vpn.refused` has"
    );
    let has_message = error["message"].as_str().is_some_and(|m| !m.is_empty());
    ensure!(has_message, "an error without a message: {error}");
    Ok(())
}

async fn unknown_config(scene: Scene<'_>) -> Verdict {
    let mut running = scene.hosted()?;
    running.send(&scene.with_unknown_field("start")).await?;
    let ended = running.end_within(running.patience).await?;
    says_why(&only_messages(&running)?, &running)?;
    ended.exits(2, "an invalid config")
}

async fn bad_config(scene: Scene<'_>) -> Verdict {
    let properties = scene.subject.description["config"]["properties"].as_object();
    let fields = properties.into_iter().flatten().map(|(field, _)| field);
    // No field has the type of an object in an array.
    let wrong: Map<String, Value> = fields
        .map(|field| (field.clone(), json!([{"no": [null]}])))
        .collect();
    let mut configs = vec![json!([1]), json!("text"), json!(7)];
    configs.extend((!wrong.is_empty()).then_some(Value::Object(wrong)));
    for config in configs {
        let scene = scene.another().await?;
        let mut running = scene.hosted()?;
        let start = json!({"dcs": 1, "type": "start", "config": config});
        running.send(&start).await?;
        // It may skip an invalid `start` and wait for another.
        if running.ended(SOON / 10).await.is_err() {
            running.close_stdin();
        }
        let ended = running.end().await?;
        let messages = only_messages(&running)?;
        let is_ready = messages.iter().any(|m| m["type"] == "ready");
        ensure!(!is_ready, "it became ready with the config {config}");
        ended.exits_somehow(&format!("with the config {config}"))?;
        if !ended.status.success() {
            says_why(&messages, &running)?;
        }
    }
    Ok(())
}

async fn bad_day(scene: Scene<'_>) -> Verdict {
    type Sabotage = fn(&mut Command, &Path);
    let days: [(&str, Sabotage); 3] = [
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
        running.send(&scene.start()).await?;
        let decided = running.decided().await;
        running.close_stdin();
        let ended = running.end().await?;
        only_messages(&running)?;
        ended.exits_somehow(what)?;
        // If the program cannot even be loaded, it cannot report why.
        let spoke = decided.is_ok() || !ended.stderr.is_empty();
        ensure!(spoke, "{what} it does not report why: {}", ended.shown());
    }
    Ok(())
}

#[allow(
    unsafe_code,
    reason = "a limit of only the child is set between fork and exec"
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
