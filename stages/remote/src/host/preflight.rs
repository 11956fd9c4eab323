//! The preflight of a plugin: its program, its description, its config, and its own checks.

use std::io::Write;
use std::path::Path;

use protocol::config::count;
use protocol::message::{Message, decode_message};
use protocol::{CheckTitle, Context, Description, Problem, StageError};
use serde_json::Value;

use super::{Config, Host, directory, find};
use crate::call::{Call, failed};
use crate::verbs::{describe, wrong_config};

const OWN: CheckTitle = ("preflight", "the plugin's own checks run");
const CONFIG: CheckTitle = ("config", "the plugin accepts the config");
const DESCRIBE: CheckTitle = ("describe", "the plugin describes itself");
const PROGRAM: CheckTitle = ("program", "the plugin's program is executable");

pub(super) async fn preflight(cx: &Context<Host>, config: &Config) {
    let program = match find(&cx.env, &config.uses) {
        Ok(program) => program,
        Err(error) => {
            cx.report_result(PROGRAM, Err(error));
            return cx.skip(&[DESCRIBE, CONFIG], "needs the program");
        }
    };
    cx.report_result(PROGRAM, Ok(program.display().to_string()));
    let described = match describe(&program, &cx.env).await {
        Ok(described) => described,
        Err(error) => {
            cx.report_result(DESCRIBE, Err(error));
            return cx.skip(&[CONFIG], "needs the description");
        }
    };
    cx.report_result(DESCRIBE, Ok(described.verbs.join(", ")));
    let with = Value::Object(config.with.clone());
    match fits(cx, &program, &described, &with).await {
        Ok(()) => cx.report_result(CONFIG, Ok("it fits the schema".to_owned())),
        Err(error) => return cx.report_result(CONFIG, Err(error)),
    }
    if described.has("check")
        && let Err(error) = own(cx, &program, &with).await
    {
        cx.report_result(OWN, Err(error));
    }
}

async fn fits(
    cx: &Context<Host>,
    program: &Path,
    described: &Description,
    with: &Value,
) -> Result<(), StageError> {
    let dir = directory(cx);
    let (found, _) = wrong_config(program, described, &cx.instance, with, &dir, &cx.env).await?;
    let problems: Vec<Problem> = found.into_iter().map(|p| p.below("with")).collect();
    if problems.is_empty() {
        return Ok(());
    }
    let message = format!("`with` has {}", count(&problems));
    let mut error = StageError::new(protocol::codes::CONFIG, message);
    error.caused_by = problems.iter().map(Problem::to_string).collect();
    Err(error)
}

/// Passes on the checks of the plugin's own preflight.
async fn own(cx: &Context<Host>, program: &Path, with: &Value) -> Result<(), StageError> {
    let failed = |why: &str| failed(program, "check --preflight", why);
    let file = tempfile::NamedTempFile::new_in(cx.run_dir.path());
    let mut file = file.map_err(|e| failed(&e.to_string()))?;
    file.write_all(with.to_string().as_bytes())
        .map_err(|e| failed(&e.to_string()))?;
    let (dir, file) = (directory(cx), file.path().to_string_lossy());
    let dir = dir.to_string_lossy();
    let args = [
        "check",
        "--preflight",
        "--name",
        &cx.instance,
        "--run-dir",
        &dir,
        "--config",
        &file,
    ];
    let call = Call::new(program, &args);
    let called = call.run(|line| cx.info(line)).await?;
    let mut found = 0;
    for line in called.stdout.split(|b| *b == b'\n') {
        if let Ok(Some(Message::Check(check))) = decode_message(line) {
            cx.report(check);
            found += 1;
        }
    }
    match called.success || found > 0 {
        true => Ok(()),
        false => Err(failed(&called.how)),
    }
}
