//! What dead runs left is undone by the stages themselves: each has `cleanup`, and the ledgers say whose turn it is.

mod preview;

use std::path::{Path, PathBuf};
use std::process::Stdio;

use protocol::ledger::{self, Owner, Survey};
use protocol::program::say;
use protocol::{Exit, NOTHING_LEFT, run_id};

use crate::devcluster::orphans;
use crate::kinds::Programs;
use crate::run_dirs;

pub(crate) use preview::preview;

/// What became of the leftovers.
#[derive(Debug, Default)]
pub(crate) struct CleanupReport {
    /// Instances that were cleaned up, with what they said.
    cleaned: Vec<(String, String)>,
    /// Instances that could not be, with the reason.
    left: Vec<(String, String)>,
    /// Instances that run: what they made is in use.
    running: Vec<String>,
}

/// Undoes all that dead runs left, there or anywhere, says what came of it, and returns the exit code. What outlived a
/// devcluster that was killed is ended first, as its next start would.
pub(crate) async fn gc(run_dir: Option<&Path>, programs: &Programs<'_>) -> u8 {
    let survey = run_dirs::survey(programs.env, run_dir);
    let run_dirs = run_dirs::run_dirs(programs.env, run_dir, &survey);
    for temp_dir in run_dirs::temp_dirs(&run_dirs) {
        for orphan in orphans::end(temp_dir).await {
            say(&format!("ended {orphan}, which outlived its devcluster"));
        }
    }
    let mut report = CleanupReport::default();
    report.clean(survey, run_dir.is_none(), programs).await;
    for run_dir in run_dirs {
        forget_killed(&run_dir, programs).await;
    }
    say(&report.report());
    match report.left.is_empty() {
        true => Exit::Ok as u8,
        false => Exit::Failed as u8,
    }
}

/// Cleans up after every instance that met there and left something. Those of a devcluster that has ended are just ending
/// too, and cleanup waits for their locks.
pub(crate) async fn sweep(run_dir: &Path, programs: &Programs<'_>) -> CleanupReport {
    let survey = run_dirs::survey(programs.env, Some(run_dir));
    let mut report = CleanupReport::default();
    report.clean(survey, false, programs).await;
    report
}

/// Has a stage undo what an instance of its kind left, and returns what it said; nothing of one that runs.
async fn cleanup(owner: &Owner, programs: &Programs<'_>) -> Result<Option<String>, String> {
    let Owner {
        kind,
        instance,
        run_dir,
    } = owner;
    let mut command = programs.command(kind, "cleanup", instance, run_dir)?;
    let output = command.output().await;
    let output = output.map_err(|e| format!("cannot run devcluster-{kind}: {e}"))?;
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    match output.status.success() {
        true => Ok(Some(said)),
        false if output.status.code() == Some(Exit::Locked as i32) => Ok(None),
        false => Err(said),
    }
}

/// Removes a ledger in which nothing is open, unless its instance runs.
async fn remove_settled(path: PathBuf, owner: Owner) {
    let mut _lock = None;
    if let Some(run_dir) = run_dirs::open(&owner.run_dir) {
        let Ok(run_dir) = run_dir else { return };
        if run_dir.holder(&owner.instance).is_some() {
            return;
        }
        let Ok(lock) = run_dir.lock(&owner.instance, &run_id()).await else {
            return;
        };
        _lock = Some(lock);
    }
    // It makes no difference to anybody when it stays.
    drop(ledger::remove_settled(&path));
}

fn is_running(owner: &Owner) -> bool {
    let run_dir = run_dirs::open(&owner.run_dir).and_then(Result::ok);
    run_dir.is_some_and(|d| d.holder(&owner.instance).is_some())
}

/// Has each instance that died without a word forget its last one. There is nothing in its ledger, so nothing to tell of.
async fn forget_killed(run_dir: &Path, programs: &Programs<'_>) {
    let Some(Ok(run_dir)) = run_dirs::open(run_dir) else {
        return;
    };
    for name in run_dir.instances() {
        let Some(status) = run_dir.status(&name) else {
            continue;
        };
        if status.phase.is_final() || run_dir.holder(&name).is_some() {
            continue;
        }
        // A status file that stays does no harm.
        if let Ok(mut command) = programs.command(&status.kind, "cleanup", &name, run_dir.path()) {
            command.stderr(Stdio::null());
            drop(command.output().await);
        }
    }
}

impl CleanupReport {
    async fn clean(&mut self, survey: Survey, skip_running: bool, programs: &Programs<'_>) {
        for (path, why) in survey.unreadable {
            let ledger = path.display().to_string();
            self.left.push((ledger, format!("cannot read it: {why}")));
        }
        for (owner, _) in survey.open {
            if skip_running && is_running(&owner) {
                self.running.push(owner.instance);
                continue;
            }
            match cleanup(&owner, programs).await {
                Ok(None) => self.running.push(owner.instance),
                Ok(Some(said)) if said.ends_with(NOTHING_LEFT) => {}
                Ok(Some(said)) => self.cleaned.push((owner.instance, said)),
                Err(why) => self.left.push((owner.instance, why)),
            }
        }
        for (path, owner) in survey.settled {
            remove_settled(path, owner).await;
        }
    }

    /// For people: a line for each, or that there was nothing.
    pub(crate) fn report(&self) -> String {
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
