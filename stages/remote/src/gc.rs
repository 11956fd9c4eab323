//! What dead runs left is undone by the stages themselves: each has `cleanup`, and the ledgers say whose turn it is.

mod foresee;
mod killed;

use std::path::Path;
use std::process::Stdio;

use protocol::kinds::PLUGIN;
use protocol::rundir::RunDir;
use protocol::{Env, Exit, NOTHING_LEFT, StageError, ledger, run_id};
use tokio::process::Command;

pub use foresee::foresee;
pub use killed::forget_killed;

use crate::devcluster::orphans;
use crate::kinds::Programs;
use crate::places;

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
pub async fn sweep(run_dir: Option<&Path>, programs: &Programs<'_>) -> Result<Swept, StageError> {
    let mut swept = Swept::default();
    let survey = ledger::all(programs.env);
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
        let mut command = match cleanup(&owner.kind, &owner.instance, &owner.run_dir, programs) {
            Ok(command) => command,
            Err(why) => {
                swept.left.push((owner.instance, why));
                continue;
            }
        };
        match command.output().await {
            Ok(output) if output.status.code() == Some(Exit::Locked as i32) => {
                swept.running.push(owner.instance);
            }
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                if !output.status.success() {
                    swept.left.push((owner.instance, said));
                } else if !said.ends_with(NOTHING_LEFT) {
                    swept.cleaned.push((owner.instance, said));
                }
            }
            Err(e) => swept.left.push((
                owner.instance,
                format!("cannot run devcluster-{}: {e}", owner.kind),
            )),
        }
    }
    for (path, owner) in survey.settled {
        if run_dir.is_none_or(|d| d == owner.run_dir) {
            remove_settled(&path, &owner).await;
        }
    }
    Ok(swept)
}

/// Removes a ledger in which nothing is open, unless its instance runs.
async fn remove_settled(path: &Path, owner: &ledger::Owner) {
    let mut lock = None;
    // Looking is not to make a directory that is gone.
    if owner.run_dir.is_dir() {
        match RunDir::open(&owner.run_dir) {
            Ok(run_dir) if !is_running(owner) => {
                lock = run_dir.lock(&owner.instance, &run_id()).await.ok();
            }
            _ => {}
        }
        if lock.is_none() {
            return;
        }
    }
    // It makes no difference to anybody when it stays.
    drop(ledger::remove_settled(path));
    drop(lock);
}

/// Has a stage undo what an instance of its kind left.
fn cleanup(
    kind: &str,
    instance: &str,
    run_dir: &Path,
    programs: &Programs,
) -> Result<Command, String> {
    let mut command = program_of(kind, programs)?;
    command
        .args(["cleanup", "--events=none", "--name", instance, "--run-dir"])
        .arg(run_dir)
        .stdin(Stdio::null());
    Ok(command)
}

/// The program of a kind of stage; a plugin's is our own host.
pub(crate) fn program_of(kind: &str, programs: &Programs) -> Result<Command, String> {
    if kind == PLUGIN {
        let mut command = Command::new(programs.beside.join("devcluster-remote"));
        command.arg("host");
        return Ok(command);
    }
    programs.find(kind).map(Command::new).map_err(|skipped| {
        let missing = format!("there is no devcluster-{kind} that may be run");
        std::iter::once(missing)
            .chain(skipped)
            .collect::<Vec<_>>()
            .join("\n")
    })
}

/// Ends what outlived a devcluster that was killed, there or wherever one is known to have run, as devcluster's next start
/// would. Says what it ended.
pub async fn end_orphans(env: &Env, run_dir: Option<&Path>) -> Vec<String> {
    let mut ended = Vec::new();
    for temp_dir in places::temp_dirs(env, run_dir) {
        let orphans = orphans::end(&temp_dir).await.into_iter();
        ended.extend(orphans.map(|o| format!("ended {o}, which outlived its devcluster")));
    }
    ended
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
