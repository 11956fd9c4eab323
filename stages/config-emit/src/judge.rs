//! Asks the master's own program whether it accepts a config. It has no verb for that: it is started, and killed when it says
//! that its config is valid, before it uses its database.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use protocol::env::is_executable;
use protocol::files::trust::trusted;
use protocol::validate::pointer_from_path;
use protocol::yaml::Seg;
use protocol::{Env, files};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::Command;

use crate::determined::kubernetes;
use crate::stage_config::StageConfig;

/// The name of the program. Another one is not run: it may be a script with effects.
const PROGRAM: &str = "determined-master";

/// Where devcluster runs it by default.
const DEFAULT: &str = "master/build/determined-master";

/// What it logs when its config is valid.
const ACCEPTED: &str = "master configuration:";

/// It answers in a fraction of a second.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The most bytes read from its log.
const MAX_LOG: u64 = 1 << 20;

/// The longest reason that is shown.
const MAX_REASON: usize = 400;

/// The program of the master, if it is at hand and safe to run.
pub(crate) fn program(target: &StageConfig<'_>, env: &Env) -> Option<PathBuf> {
    let (_, stage) = target.config.split_last()?;
    let cmdline: Vec<Seg> = [stage, &["cmdline".into(), 0.into()]].concat();
    let written = target.base.document.get(&cmdline);
    let written = written.as_ref().map_or(Some(DEFAULT), Value::as_str)?;
    let program = env.find_program(&env.expand_variables(written))?;
    let is_master = program.file_name().is_some_and(|name| name == PROGRAM);
    (is_master && is_executable(&program) && trusted(&program).is_ok()).then_some(program)
}

/// What it says of a config. `None` when it does not answer.
pub(crate) async fn judge(
    program: &Path,
    config: &Value,
    env: &Env,
    scratch: &Path,
) -> Option<Result<(), String>> {
    let path = scratch.join("master.yaml");
    let text = harmless(config, env, scratch).to_string();
    files::replace(&path, text.as_bytes(), false).ok()?;
    let mut command = Command::new(program);
    command.arg("--config-file").arg(&path);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let mut child = command
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .ok()?;
    let mut log = BufReader::new(child.stderr.take()?.take(MAX_LOG)).lines();
    let answer = async {
        let mut errors = None;
        while let Ok(Some(line)) = log.next_line().await {
            if line.contains(ACCEPTED) {
                return Some(Ok(()));
            }
            if line.contains("level=error") || line.contains("level=fatal") || errors.is_none() {
                errors = Some(line);
            }
        }
        let status = child.wait().await.ok()?;
        (!status.success()).then(|| Err(reason(errors.as_deref().unwrap_or_default())))
    };
    let answer = tokio::time::timeout(TIMEOUT, answer).await;
    answer.ok().flatten()
}

/// The config as devcluster expands it, except the places that the master would use: no database, a cache of its own, and
/// what the gateway stage sets later.
fn harmless(config: &Value, env: &Env, scratch: &Path) -> Value {
    let mut config = expanded(config, env);
    let paths = kubernetes(&config)
        .into_iter()
        .map(|manager| pointer_from_path(&manager.path));
    for path in paths.collect::<Vec<_>>() {
        let block = config.pointer_mut(&format!("{path}/internal_task_gateway"));
        let Some(Value::Object(block)) = block else {
            continue;
        };
        for key in ["gateway_name", "gateway_namespace", "gateway_ip"] {
            block.entry(key).or_insert_with(|| "later".into());
        }
    }
    set(&mut config, "db", "host", "127.0.0.1".into());
    set(&mut config, "db", "port", "1".into());
    set(
        &mut config,
        "cache",
        "cache_dir",
        scratch.to_string_lossy().into(),
    );
    config
}

/// Sets a field, unless the master will refuse the whole.
fn set(config: &mut Value, section: &str, key: &str, value: Value) {
    let Value::Object(config) = config else {
        return;
    };
    if let Value::Object(section) = config.entry(section).or_insert_with(|| json!({})) {
        section.insert(key.to_owned(), value);
    }
}

fn expanded(value: &Value, env: &Env) -> Value {
    match value {
        Value::String(text) => env.expand_variables(text).into(),
        Value::Array(items) => items.iter().map(|it| expanded(it, env)).collect(),
        Value::Object(fields) => {
            let fields = fields.iter();
            Value::Object(
                fields
                    .map(|(key, it)| (key.clone(), expanded(it, env)))
                    .collect(),
            )
        }
        other => other.clone(),
    }
}

/// The message of a line of the log.
fn reason(line: &str) -> String {
    let message = line.split_once("msg=").map_or(line, |(_, message)| message);
    let message = message.trim().trim_matches('"');
    // A stack follows the message.
    let message = message.split("\\n").next().unwrap_or_default();
    let message = message.replace("\\\"", "\"");
    message
        .chars()
        .filter(|c| !c.is_control())
        .take(MAX_REASON)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_log_gives_the_reason() {
        let line = r#"time="2025-01-01T00:00:00Z" level=error msg="cannot unmarshal configuration: json: unknown field \"prot\"\nmain.getConfig\n\t/x.go:1""#;
        assert_eq!(
            reason(line),
            r#"cannot unmarshal configuration: json: unknown field "prot""#
        );
        assert_eq!(reason("panic: x"), "panic: x");
    }

    #[test]
    fn the_program_gets_no_database_and_no_cache_of_the_user() {
        let env = Env::from_pairs([("W", "secret")]);
        let config = json!({
            "db": {"host": "db.example.com", "port": 5432, "password": "$W"},
            "resource_manager": {"type": "kubernetes", "internal_task_gateway": {"gateway_ip": "a"}},
        });
        let harmless = harmless(&config, &env, Path::new("/scratch"));
        let expected = json!({
            "db": {"host": "127.0.0.1", "port": "1", "password": "secret"},
            "cache": {"cache_dir": "/scratch"},
            "resource_manager": {
                "type": "kubernetes",
                "internal_task_gateway":
                    {"gateway_ip": "a", "gateway_name": "later", "gateway_namespace": "later"},
            },
        });
        assert_eq!(harmless, expected);
    }
}
