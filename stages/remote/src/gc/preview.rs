//! `gc --dry-run`: the stages list what is left on this machine, on the server and on the cluster.

use std::path::Path;
use std::time::Duration;

use futures::future::join_all;
use protocol::{Exit, ledger};
use tokio::time::timeout;

use super::is_running;
use crate::devcluster::orphans;
use crate::kinds::Programs;
use crate::run_dirs;

/// How long a stage may take. A login takes a second, and much longer when the server does not answer.
const PREVIEW_TIMEOUT: Duration = Duration::from_secs(30);

/// Lists what `gc` would do, for people. Acquires no lock and changes nothing.
pub(crate) async fn preview(run_dir: Option<&Path>, now: bool, programs: &Programs<'_>) -> String {
    let survey = run_dirs::survey(programs.env, run_dir);
    let unreadable = survey.unreadable.iter();
    let mut lines: Vec<String> = unreadable
        .map(|(path, why)| format!("cannot read {}: {why}", path.display()))
        .collect();
    let run_dirs = run_dirs::run_dirs(programs.env, run_dir, &survey);
    for temp_dir in run_dirs::temp_dirs(&run_dirs) {
        let orphans = orphans::list_alive(temp_dir).await.into_iter();
        lines.extend(orphans.map(|o| format!("would end {o}, which outlived its devcluster")));
    }
    // A memory is nothing that was left.
    let is_memory =
        |entry: &ledger::Entry| entry.parked.as_ref().is_some_and(|p| p.what.is_empty());
    let owners = survey.open.into_iter();
    let owners = owners.filter(|(_, entries)| now || !entries.iter().all(is_memory));
    let looking = owners.map(async |(owner, entries)| {
        let (name, dir) = (&owner.instance, owner.run_dir.display());
        let plain = entries.iter().map(|e| format!("  {}", e.describe()));
        if is_running(&owner, programs.env) {
            let head = format!("{name} of {dir} is running: would not be touched");
            return std::iter::once(head).chain(plain).collect();
        }
        let head = format!("{name} of {dir} is dead:");
        let below = match ask(&owner, now, programs).await {
            Ok(said) => said,
            Err(why) => {
                let note = format!("  (according to its ledger: {why})");
                plain.chain(std::iter::once(note)).collect()
            }
        };
        std::iter::once(head).chain(below).collect::<Vec<_>>()
    });
    lines.extend(join_all(looking).await.into_iter().flatten());
    match lines.is_empty() {
        true => "nothing was left behind".to_owned(),
        false => lines.join("\n"),
    }
}

/// The lines that the stage prints, or why it prints none.
async fn ask(
    owner: &ledger::Owner,
    now: bool,
    programs: &Programs<'_>,
) -> Result<Vec<String>, String> {
    let (name, dir) = (&owner.instance, &owner.run_dir);
    let mut command = programs.command(&owner.kind, "cleanup", name, dir)?;
    command.arg("--dry-run").kill_on_drop(true);
    if !now {
        command.arg("--keep");
    }
    let output = match timeout(PREVIEW_TIMEOUT, command.output()).await {
        Ok(Ok(output)) => output,
        Ok(Err(e)) => return Err(format!("cannot run devcluster-{}: {e}", owner.kind)),
        Err(_) => {
            return Err(format!(
                "it did not finish within {} s",
                PREVIEW_TIMEOUT.as_secs()
            ));
        }
    };
    if output.status.code() == Some(Exit::Usage as i32) {
        let kind = &owner.kind;
        return Err(format!("devcluster-{kind} has no `cleanup --dry-run`"));
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let prefix = format!("{name}: ");
    let lines = said.lines().map(|l| l.strip_prefix(&prefix).unwrap_or(l));
    Ok(lines.map(|line| format!("  {line}")).collect())
}
