//! Where stages meet on this machine, as far as anybody can know.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use protocol::{Env, ledger};

/// Every run directory that is known here: the usual ones, and those of instances that have something to undo.
pub(crate) fn run_dirs(env: &Env, only: Option<&Path>) -> BTreeSet<PathBuf> {
    if let Some(only) = only {
        return BTreeSet::from([only.to_owned()]);
    }
    let open = ledger::all(env).open.into_iter();
    let owners = open.map(|(owner, _)| owner.run_dir);
    let usual = [
        env.default_run_dir(),
        PathBuf::from("/tmp/devcluster/stages"),
    ];
    owners.chain(usual).collect()
}

/// The directories of devclusters whose stages meet there.
pub(crate) fn temp_dirs(env: &Env, only: Option<&Path>) -> Vec<PathBuf> {
    let run_dirs = run_dirs(env, only).into_iter();
    let of_devcluster = run_dirs.filter(|d| d.file_name().is_some_and(|name| name == "stages"));
    of_devcluster
        .filter_map(|d| d.parent().map(Path::to_owned))
        .collect()
}
