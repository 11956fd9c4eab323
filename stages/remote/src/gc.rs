//! What dead runs left is undone by the stages themselves: each has `cleanup`, and the ledgers say whose turn it is.

use std::path::Path;
use std::process::Stdio;

use protocol::rundir::RunDir;
use protocol::{Env, Exit, StageError, ledger};
use serde_json::Value;
use tokio::process::Command;

/// What became of the leftovers.
#[derive(Debug, Default)]
pub struct Swept {
    /// Instances that were cleaned up, with what they said.
    pub cleaned: Vec<(String, String)>,
    /// Instances that could not be, with the reason.
    pub left: Vec<(String, String)>,
    /// Instances that run: what they made is in use.
    pub running: Vec<String>,
}

/// Cleans up after every instance that left something; with a run directory, only those that met there.
pub async fn sweep(
    env: &Env,
    run_dir: Option<&Path>,
    programs: &Path,
) -> Result<Swept, StageError> {
    let mut swept = Swept::default();
    let survey = ledger::all(env);
    for (path, why) in survey.unreadable {
        if run_dir.is_none_or(|d| ledger::is_of(&path, d)) {
            let ledger = path.display().to_string();
            swept.left.push((ledger, format!("cannot read it: {why}")));
        }
    }
    for (owner, _) in survey.open {
        if run_dir.is_some_and(|d| d != owner.run_dir) {
            continue;
        }
        // After a devcluster its stages are just ending, and cleanup waits for their locks.
        if run_dir.is_none() && is_running(&owner) {
            swept.running.push(owner.instance);
            continue;
        }
        let mut command = program_of(&owner.kind, programs);
        let output = command
            .args([
                "cleanup",
                "--events=none",
                "--name",
                &owner.instance,
                "--run-dir",
            ])
            .arg(&owner.run_dir)
            .stdin(Stdio::null())
            .output()
            .await;
        match output {
            Ok(output) if output.status.code() == Some(Exit::Locked as i32) => {
                swept.running.push(owner.instance);
            }
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                let list = if output.status.success() {
                    &mut swept.cleaned
                } else {
                    &mut swept.left
                };
                list.push((owner.instance, said));
            }
            Err(e) => swept.left.push((
                owner.instance,
                format!("cannot run devcluster-{}: {e}", owner.kind),
            )),
        }
    }
    Ok(swept)
}

/// The program of a kind of stage, beside our own.
pub(crate) fn program_of(kind: &str, programs: &Path) -> Command {
    if kind == "plugin" {
        let mut command = Command::new(programs.join("devcluster-remote"));
        command.arg("host");
        return command;
    }
    let name = format!("devcluster-{kind}");
    let beside = programs.join(&name);
    // A stage that is not ours has its own place.
    Command::new(if beside.is_file() {
        beside
    } else {
        name.into()
    })
}

/// What a sweep would do, for people. Reads the ledgers and nothing else: no stage is run, no lock is taken.
pub fn foresee(env: &Env, run_dir: Option<&Path>) -> String {
    let survey = ledger::all(env);
    let mut text = String::new();
    for (path, why) in survey.unreadable {
        if run_dir.is_none_or(|d| ledger::is_of(&path, d)) {
            text.push_str(&format!("cannot read {}: {why}\n", path.display()));
        }
    }
    for (owner, entries) in survey.open {
        if run_dir.is_some_and(|d| d != owner.run_dir) {
            continue;
        }
        let (name, dir) = (&owner.instance, owner.run_dir.display());
        text.push_str(&match is_running(&owner) {
            true => format!("{name} of {dir} runs: would leave alone\n"),
            false => format!("{name} of {dir} is dead: would undo\n"),
        });
        for entry in entries {
            text.push_str(&format!("  {}\n", describe(&entry)));
        }
    }
    match text.is_empty() {
        true => "nothing was left behind".to_owned(),
        false => text.trim_end().to_owned(),
    }
}

/// What a ledger says of one resource, as far as it is plain text or numbers.
fn describe(entry: &ledger::Entry) -> String {
    let fields = entry.data.as_object().into_iter().flatten();
    let plain = fields.filter_map(|(key, value)| match value {
        Value::String(text) => Some(format!("{key} {text}")),
        Value::Number(number) => Some(format!("{key} {number}")),
        _ => None,
    });
    let plain: Vec<_> = plain.collect();
    match plain.is_empty() {
        true => entry.what.clone(),
        false => format!("{}: {}", entry.what, plain.join(", ")),
    }
}

fn is_running(owner: &ledger::Owner) -> bool {
    // Looking is not to make a directory that is gone.
    owner.run_dir.is_dir()
        && RunDir::open(&owner.run_dir).is_ok_and(|d| d.holder(&owner.instance).is_some())
}

impl Swept {
    /// For people: a line for each, or that there was nothing.
    pub fn report(&self) -> String {
        let mut text = String::new();
        for (instance, said) in &self.cleaned {
            text.push_str(&format!("cleaned up after {instance}\n{}\n", indent(said)));
        }
        for (instance, said) in &self.left {
            text.push_str(&format!(
                "left by {instance}, to be tried again with `devcluster-remote gc`\n{}\n",
                indent(said)
            ));
        }
        for instance in &self.running {
            text.push_str(&format!("{instance} is still running, left alone\n"));
        }
        match text.is_empty() {
            true => "nothing was left behind".to_owned(),
            false => text.trim_end().to_owned(),
        }
    }
}

fn indent(text: &str) -> String {
    text.lines()
        .map(|l| format!("  {l}"))
        .collect::<Vec<_>>()
        .join("\n")
}
