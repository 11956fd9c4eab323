//! stdout is the wire and nothing else, whatever happens.

use std::path::Path;

use futures::FutureExt;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Map, Value, json};
use tokio::process::Command;

use crate::heard::Heard;
use crate::running::{Running, Streams, parse};
use crate::scene::{SOON, Scene};
use crate::subject::{INSTANCE, Subject};
use crate::verdict::{Finding, Verdict, demand, failed, shown, skipped};
use crate::{Check, Level};

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "stdout.lines",
        level: Level::Plugin,
        title: "every line of a whole life is a message: hello first, result last",
        section: "what-a-stage-says",
        run: |s| lines(s).boxed_local(),
    },
    Check {
        id: "stdout.one_write",
        level: Level::Plugin,
        title: "each message leaves in one write",
        section: "lines",
        run: |s| one_write(s).boxed_local(),
    },
    Check {
        id: "stdout.unknown_config",
        level: Level::Plugin,
        title: "a config field that it does not know is refused: an error with a code, exit 2",
        section: "versions",
        run: |s| unknown_config(s).boxed_local(),
    },
    Check {
        id: "stdout.bad_config",
        level: Level::Plugin,
        title: "a config of the wrong types is refused in messages, without a crash",
        section: "errors",
        run: |s| bad_config(s).boxed_local(),
    },
    Check {
        id: "stdout.bad_day",
        level: Level::Plugin,
        title: "with no place for files and few descriptors stdout still holds messages only",
        section: "lines",
        run: |s| bad_day(s).boxed_local(),
    },
];

/// Whether everything on stdout is a message of this instance, to the last byte.
pub(super) fn only_messages(stdout: &Heard) -> Result<Vec<Value>, Finding> {
    let (lines, end) = stdout.lines_from(0);
    let mut messages = Vec::new();
    for line in lines {
        let message = parse(&line).or_else(failed)?;
        demand(message["stage"] == INSTANCE, || {
            format!(
                "it was called with --name {INSTANCE} and speaks as {}: {}",
                message["stage"],
                shown(&line)
            )
        })?;
        messages.push(message);
    }
    let bytes = stdout.bytes();
    demand(bytes.len() == end, || {
        format!("half a line on stdout: {}", shown(&bytes[end..]))
    })?;
    Ok(messages)
}

async fn lines(subject: &Subject) -> Verdict {
    let scene = Scene::new(subject)?;
    let mut running = scene.ready().await?;
    let status = running.stop().await?;
    let messages = only_messages(&running.stdout)?;
    let first = messages.first().cloned().unwrap_or_default();
    demand(first["type"] == "hello", || {
        format!("the first message is not `hello` but {first}")
    })?;
    let run = first["run"].as_str().unwrap_or_default();
    let is_id = run.len() == 16 && run.bytes().all(|b| b.is_ascii_hexdigit());
    demand(is_id, || {
        format!(
            "the `run` of `hello` is {}, and has to be 16 hex digits",
            first["run"]
        )
    })?;
    for message in messages.iter().filter(|m| m.get("run").is_some()) {
        demand(message["run"] == first["run"], || {
            format!("another `run` than in `hello`: {message}")
        })?;
    }
    let last = messages.last().cloned().unwrap_or_default();
    demand(last["type"] == "result", || {
        format!("the last message is not `result` but {last}")
    })?;
    demand(
        last["exit"].as_i64() == status.code().map(i64::from),
        || format!("`result` says {last} and it ended with {status}"),
    )?;
    let again = Scene::new(subject)?;
    let mut next = again.ready().await?;
    demand(
        next.last("hello").is_some_and(|h| h["run"] != first["run"]),
        || "two runs have the same `run`".to_owned(),
    )?;
    next.stop().await.map(drop)
}

async fn one_write(subject: &Subject) -> Verdict {
    if !cfg!(target_os = "linux") {
        return skipped(
            "this system does not show where a write ends",
            "check it on Linux",
        );
    }
    let scene = Scene::new(subject)?;
    let mut running = scene.ready().await?;
    running.stop().await?;
    let broken = running
        .stdout
        .writes()
        .into_iter()
        .find(|w| !w.ends_with(b"\n"));
    match broken {
        Some(write) => failed(format!(
            "a write that does not end a message: {}",
            shown(&write)
        )),
        None => Ok(()),
    }
}

/// Its end, when it was told this.
async fn refusal(
    scene: &Scene<'_>,
    start: &Value,
) -> Result<(Vec<Value>, Option<i32>, String), Finding> {
    let mut running = scene.hosted()?;
    running.tell(start).await?;
    let (status, _) = running.ended(scene.subject.patience).await?;
    running.heard_out().await?;
    Ok((
        only_messages(&running.stdout)?,
        status.code(),
        running.state(),
    ))
}

fn is_code(text: &str) -> bool {
    let word = |w: &str| {
        !w.is_empty()
            && w.bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b))
    };
    text.contains('.') && text.split('.').all(word)
}

/// The fatal error among the messages, with what every error has.
fn fatal(messages: &[Value], state: &str) -> Result<Value, Finding> {
    let error = messages
        .iter()
        .find(|m| m["type"] == "error" && m["error"]["fatal"] == true);
    let Some(error) = error.map(|m| m["error"].clone()) else {
        return failed(format!("no `error` message that is fatal{state}"));
    };
    demand(is_code(error["code"].as_str().unwrap_or_default()), || {
        format!(
            "the code {} is not namespaced, like `vpn.refused`",
            error["code"]
        )
    })?;
    demand(
        error["message"].as_str().is_some_and(|m| !m.is_empty()),
        || format!("an error without a message: {error}"),
    )?;
    Ok(error)
}

async fn unknown_config(subject: &Subject) -> Verdict {
    let scene = Scene::new(subject)?;
    let mut start = scene.start();
    start["config"]["no_such_field"] = json!(1);
    let (messages, code, state) = refusal(&scene, &start).await?;
    fatal(&messages, &state)?;
    demand(code == Some(2), || {
        format!("it ended with {code:?}, and a wrong config is exit code 2{state}")
    })
}

async fn bad_config(subject: &Subject) -> Verdict {
    let properties = subject.description["config"]["properties"]
        .as_object()
        .cloned()
        .unwrap_or_default();
    // An object in an array is of no field's type.
    let wrong: Map<String, Value> = properties
        .into_iter()
        .map(|(k, _)| (k, json!([{"no": [null]}])))
        .collect();
    let mut configs = vec![json!([1]), json!("text"), json!(7)];
    if !wrong.is_empty() {
        configs.push(Value::Object(wrong));
    }
    for config in configs {
        let scene = Scene::new(subject)?;
        let mut running = scene.hosted()?;
        running
            .tell(&json!({"dcs": 1, "type": "start", "config": config}))
            .await?;
        // A start that is none may be skipped, and another waited for.
        let ended = running.ended(SOON / 10).await;
        if ended.is_err() {
            running.close_stdin();
        }
        let (status, _) = match ended {
            Ok(ended) => ended,
            Err(_) => running.ended(SOON).await?,
        };
        running.heard_out().await?;
        let messages = only_messages(&running.stdout)?;
        let state = running.state();
        demand(!messages.iter().any(|m| m["type"] == "ready"), || {
            format!("it became ready with the config {config}")
        })?;
        demand(status.code().is_some(), || {
            format!("it crashed ({status}) on the config {config}{state}")
        })?;
        if status.code() != Some(0) {
            fatal(&messages, &state)?;
        }
    }
    Ok(())
}

async fn bad_day(subject: &Subject) -> Verdict {
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
        let scene = Scene::new(subject)?;
        std::fs::write(scene.home().join("file"), "")?;
        let mut command = match what.contains("run directory") {
            true => without_run_dir(&scene),
            false => scene.verb("run", &["--stdin", "control"]),
        };
        spoil(&mut command, scene.home());
        let mut running = Running::spawn(&scene, command, Streams::default())?;
        running.tell(&scene.start()).await?;
        let until_known = running
            .until("anything decisive", |m| {
                m["type"] == "ready" || m["type"] == "result"
            })
            .await;
        running.close_stdin();
        let state = running.state();
        let (status, _) = running.ended(SOON).await?;
        running.heard_out().await?;
        only_messages(&running.stdout)?;
        // Where not even the program can be loaded there is nobody to say why.
        let spoke = until_known.is_ok() || !running.stderr.text().is_empty();
        demand(spoke && status.code().is_some(), || {
            format!("{what}: {status}{state}")
        })?;
    }
    Ok(())
}

fn without_run_dir(scene: &Scene) -> Command {
    let words = &scene.subject.program;
    let mut command = scene.program(&words[0]);
    command
        .args(&words[1..])
        .args(["run", "--stdin", "control", "--name", INSTANCE]);
    command.args(&scene.subject.flags);
    command
}

#[allow(
    unsafe_code,
    reason = "a limit of the child alone is set between fork and exec"
)]
fn limit_descriptors(command: &mut Command, limit: u64) {
    let set = move || {
        let maximum = getrlimit(Resource::Nofile).maximum;
        setrlimit(
            Resource::Nofile,
            Rlimit {
                current: Some(limit),
                maximum,
            },
        )?;
        Ok(())
    };
    // SAFETY: two plain system calls.
    unsafe {
        command.pre_exec(set);
    }
}
