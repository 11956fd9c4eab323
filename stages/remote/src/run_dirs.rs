//! The known run directories of this machine.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use protocol::ledger::{self, Survey};
use protocol::rundir::RunDir;
use protocol::{Env, StageError};

/// The ledgers of one run directory, or of all.
pub(crate) fn survey(env: &Env, only: Option<&Path>) -> Survey {
    let mut survey = ledger::survey(env);
    if let Some(only) = only {
        survey.open.retain(|(owner, _)| owner.run_dir == only);
        survey.settled.retain(|(_, owner)| owner.run_dir == only);
        survey
            .unreadable
            .retain(|(path, _)| ledger::belongs_to(path, only));
    }
    survey
}

/// Every known run directory: the default ones, and those of instances with open ledger entries.
pub(crate) fn run_dirs(env: &Env, only: Option<&Path>, survey: &Survey) -> BTreeSet<PathBuf> {
    if let Some(only) = only {
        return BTreeSet::from([only.to_owned()]);
    }
    let owners = survey.open.iter().map(|(owner, _)| owner.run_dir.clone());
    let usual = [
        env.default_run_dir(),
        PathBuf::from("/tmp/devcluster/stages"),
    ];
    owners.chain(usual).collect()
}

/// The `temp_dir` of each devcluster with one of these run directories.
pub(crate) fn temp_dirs(run_dirs: &BTreeSet<PathBuf>) -> impl Iterator<Item = &Path> {
    let run_dirs = run_dirs.iter();
    let of_devcluster = run_dirs.filter(|d| d.file_name().is_some_and(|name| name == "stages"));
    of_devcluster.filter_map(|d| d.parent())
}

/// Opens a run directory if it exists. Never creates one.
pub(crate) fn open(run_dir: &Path) -> Option<Result<RunDir, StageError>> {
    run_dir.is_dir().then(|| RunDir::open(run_dir))
}
