//! What a killed stage left in its run directory alone: words of itself that nobody reads any more.

use std::path::Path;
use std::process::Stdio;

use protocol::rundir::{Phase, RunDir};

use super::cleanup;
use crate::kinds::Programs;
use crate::places;

/// Has each instance that died without a word forget its last one. There is nothing in its ledger, so nothing to tell of.
pub async fn forget_killed(run_dir: Option<&Path>, programs: &Programs<'_>) {
    let known = places::run_dirs(programs.env, run_dir).into_iter();
    // Looking is not to make a directory.
    let there = known.filter(|d| d.is_dir());
    for run_dir in there.filter_map(|d| RunDir::open(&d).ok()) {
        for name in run_dir.instances() {
            let Some(status) = run_dir.status(&name) else {
                continue;
            };
            let ended = matches!(status.phase, Phase::Stopped | Phase::Failed);
            if ended || run_dir.holder(&name).is_some() {
                continue;
            }
            // A status file that stays does no harm.
            if let Ok(mut command) = cleanup(&status.kind, &name, run_dir.path(), programs) {
                command.stderr(Stdio::null());
                drop(command.output().await);
            }
        }
    }
}
