//! Where stages meet on this machine, as far as anybody can know.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use protocol::ledger::{self, Survey};
use protocol::rundir::RunDir;
use protocol::{Env, StageError};

/// What the ledgers here say, of the instances that met in this run directory or in any.
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

/// Every run directory that is known here: the usual ones, and those of instances that have something to undo.
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

/// The directories of devclusters whose stages meet there.
pub(crate) fn temp_dirs(run_dirs: &BTreeSet<PathBuf>) -> impl Iterator<Item = &Path> {
    let run_dirs = run_dirs.iter();
    let of_devcluster = run_dirs.filter(|d| d.file_name().is_some_and(|name| name == "stages"));
    of_devcluster.filter_map(|d| d.parent())
}

/// A run directory that is there: looking is not to make one.
pub(crate) fn open(run_dir: &Path) -> Option<Result<RunDir, StageError>> {
    run_dir.is_dir().then(|| RunDir::open(run_dir))
}
