//! What a sweep would do: the stages look themselves, here, on the server and on the cluster.

use std::path::Path;
use std::time::Duration;

use futures::future::join_all;
use protocol::{Exit, ledger};
use tokio::time::timeout;

use super::is_running;
use crate::devcluster::orphans;
use crate::kinds::Programs;
use crate::run_dirs;

/// A login takes a second; to a server that does not answer it takes as long as ssh has patience.
const PREVIEW_TIMEOUT: Duration = Duration::from_secs(30);

/// What a sweep would do, for people. No lock is taken and nothing is changed.
pub(crate) async fn preview(run_dir: Option<&Path>, programs: &Programs<'_>) -> String {
    let survey = run_dirs::survey(programs.env, run_dir);
    let unreadable = survey.unreadable.iter();
    let mut lines: Vec<String> = unreadable
        .map(|(path, why)| format!("cannot read {}: {why}", path.display()))
        .collect();
    let run_dirs = run_dirs::run_dirs(programs.env, run_dir, &survey);
    for temp_dir in run_dirs::temp_dirs(&run_dirs) {
        let orphans = orphans::list_alive(temp_dir).await.into_iter();
        lines.extend(orphans.map(|o| format!("{o} outlived its devcluster: would end it")));
    }
    let owners = survey.open.into_iter();
    let looking = owners.map(async |(owner, entries)| {
        let (name, dir) = (&owner.instance, owner.run_dir.display());
        let plain = entries.iter().map(|e| format!("  {}", e.describe()));
        if is_running(&owner) {
            let head = format!("{name} of {dir} runs: would leave alone");
            return std::iter::once(head).chain(plain).collect();
        }
        let head = format!("{name} of {dir} is dead:");
        let below = match ask(&owner, programs).await {
            Ok(said) => said,
            Err(why) => {
                let note = format!("  (as its ledger has it: {why})");
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

/// What the stage itself says, or why it does not.
async fn ask(owner: &ledger::Owner, programs: &Programs<'_>) -> Result<Vec<String>, String> {
    let (name, dir) = (&owner.instance, &owner.run_dir);
    let mut command = programs.command(&owner.kind, "cleanup", name, dir)?;
    command.arg("--dry-run").kill_on_drop(true);
    let output = match timeout(PREVIEW_TIMEOUT, command.output()).await {
        Ok(Ok(output)) => output,
        Ok(Err(e)) => return Err(format!("cannot run devcluster-{}: {e}", owner.kind)),
        Err(_) => {
            return Err(format!(
                "it was not through after {} s",
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
