//! All ledgers of a user: open entries by owner, and files that a killed run left.

use std::path::{Path, PathBuf};

use super::{Entry, Owner, directory, load, lock_path, suffix};
use crate::env::Env;
use crate::files::{self, Locked};
use crate::identity::FORMAT;

/// What the ledgers of this user contain.
#[derive(Debug, Default)]
pub struct Survey {
    /// Each ledger with open entries: its owner and these entries.
    pub open: Vec<(Owner, Vec<Entry>)>,
    /// Each file with an owner and no open entry: a kill between two steps leaves one.
    pub settled: Vec<(PathBuf, Owner)>,
    /// Files that could not be read, and why. They may contain open entries.
    pub unreadable: Vec<(PathBuf, std::io::Error)>,
}

/// Reads every ledger of this user.
pub fn survey(env: &Env) -> Survey {
    let mut survey = Survey::default();
    let directory = directory(env);
    let files = match std::fs::read_dir(&directory) {
        Ok(files) => files,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return survey,
        Err(e) => {
            survey.unreadable.push((directory, e));
            return survey;
        }
    };
    for path in files.flatten().map(|f| f.path()) {
        let text = path.to_string_lossy();
        let is_new = text.ends_with(".jsonl.tmp");
        if !is_new && !text.ends_with(".jsonl") {
            continue;
        }
        match load(&path) {
            Ok((_, state)) if state.format > FORMAT => {
                let why = format!("format {} is of a newer release", state.format);
                survey.unreadable.push((path, std::io::Error::other(why)));
            }
            // No entry of a new file was ever acted upon.
            Ok((Some(owner), state)) if is_new || state.open.is_empty() => {
                survey.settled.push((path, owner));
            }
            _ if is_new => {}
            Ok((Some(owner), state)) => survey.open.push((owner, state.open)),
            Ok((None, _)) => {
                let why = std::io::Error::other("it has no owner");
                survey.unreadable.push((path, why));
            }
            Err(e) => survey.unreadable.push((path, e)),
        }
    }
    survey
        .open
        .sort_by(|a, b| (&a.0.run_dir, &a.0.instance).cmp(&(&b.0.run_dir, &b.0.instance)));
    survey
}

/// Removes a file of [`Survey::settled`], if it still has no open entry. The caller holds its instance's lock.
pub fn remove_settled(path: &Path) -> std::io::Result<()> {
    let is_new = path.extension().is_some_and(|it| it == "tmp");
    if is_new {
        return files::remove(path);
    }
    let Some(_lock) = Locked::try_at(&lock_path(path))? else {
        return Ok(());
    };
    if load(path)?.1.open.is_empty() {
        files::remove(path)?;
        files::remove(&lock_path(path))?;
    }
    Ok(())
}

/// Whether a ledger belongs to an instance of this run directory, by its file name.
pub fn belongs_to(path: &Path, run_dir: &Path) -> bool {
    path.to_string_lossy().ends_with(&suffix(run_dir))
}
