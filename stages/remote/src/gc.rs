//! Removes what dead runs left: the ledgers name the instances, and each stage removes its own things with `cleanup`.

mod preview;

use std::path::{Path, PathBuf};
use std::process::Stdio;

use protocol::ledger::{self, Owner, Survey};
use protocol::program::say;
use protocol::{Env, Exit, NOTHING_LEFT, run_id};

use crate::devcluster::orphans;
use crate::kinds::Programs;
use crate::run_dirs;

pub(crate) use preview::preview;

/// The result of a cleanup.
#[derive(Debug, Default)]
pub(crate) struct CleanupReport {
    /// Instances that were cleaned up, with their output.
    cleaned: Vec<(String, String)>,
    /// Instances whose cleanup failed, with the reason.
    left: Vec<(String, String)>,
    /// Running instances, whose things are in use.
    running: Vec<String>,
    /// Whether nothing is kept for running tasks.
    now: bool,
}

/// Removes everything that dead runs left, in one run directory or in all, reports it, and returns the exit code. First it
/// ends stages that outlived a killed devcluster, as devcluster's next start would. What running tasks depend on stays for
/// its time, unless `now` is set.
pub(crate) async fn gc(run_dir: Option<&Path>, now: bool, programs: &Programs<'_>) -> u8 {
    let survey = run_dirs::survey(programs.env, run_dir);
    let run_dirs = run_dirs::run_dirs(programs.env, run_dir, &survey);
    for temp_dir in run_dirs::temp_dirs(&run_dirs) {
        for orphan in orphans::end(temp_dir).await {
            say(&format!("ended {orphan}, which outlived its devcluster"));
        }
    }
    let mut report = CleanupReport {
        now,
        ..CleanupReport::default()
    };
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

/// Cleans up after every instance of a run directory that left something. Stages of a devcluster that just ended may still
/// be ending: `cleanup` waits for their locks.
pub(crate) async fn sweep(run_dir: &Path, now: bool, programs: &Programs<'_>) -> CleanupReport {
    let survey = run_dirs::survey(programs.env, Some(run_dir));
    let mut report = CleanupReport {
        now,
        ..CleanupReport::default()
    };
    report.clean(survey, false, programs).await;
    report
}

/// Runs `cleanup` for an instance and returns its output; `None` for a running instance.
async fn cleanup(
    owner: &Owner,
    now: bool,
    programs: &Programs<'_>,
) -> Result<Option<String>, String> {
    let Owner {
        kind,
        instance,
        run_dir,
    } = owner;
    let mut command = programs.command(kind, "cleanup", instance, run_dir)?;
    if !now {
        command.arg("--keep");
    }
    let output = command.output().await;
    let output = output.map_err(|e| format!("cannot run devcluster-{kind}: {e}"))?;
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    match output.status.success() {
        true => Ok(Some(said)),
        false if output.status.code() == Some(Exit::Locked as i32) => Ok(None),
        false => Err(said),
    }
}

/// Removes a ledger without open entries, unless its instance runs.
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
    // A settled ledger that stays does no harm.
    drop(ledger::remove_settled(&path));
}

fn is_running(owner: &Owner, env: &Env) -> bool {
    let run_dir = run_dirs::open(&owner.run_dir).and_then(Result::ok);
    run_dir.is_some_and(|d| d.holder(&owner.instance).is_some()) || ledger::is_open(env, owner)
}

/// Removes the status of each killed instance with `cleanup`. Its ledger has no open entry, so nothing is reported.
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
            command.arg("--keep").stderr(Stdio::null());
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
            if skip_running && is_running(&owner, programs.env) {
                self.running.push(owner.instance);
                continue;
            }
            match cleanup(&owner, self.now, programs).await {
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

    /// The report for people: one line per instance, or that nothing was left.
    pub(crate) fn report(&self) -> String {
        let mut text = String::new();
        for (instance, said) in &self.cleaned {
            text.push_str(&format!("cleaned up after {instance}\n{}\n", indent(said)));
        }
        for (instance, said) in &self.left {
            text.push_str(&format!(
                "cannot remove what {instance} left; try again with `devcluster-remote gc`\n{}\n",
                indent(said)
            ));
        }
        for instance in &self.running {
            text.push_str(&format!(
                "{instance} is still running and was not touched\n"
            ));
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
