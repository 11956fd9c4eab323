//! All ledgers of a user: what is to be undone, by whom, and what a kill left of files.

use std::path::{Path, PathBuf};

use super::{Entry, Owner, directory, load, suffix};
use crate::env::Env;
use crate::files;

/// What the ledgers of this user say.
#[derive(Debug, Default)]
pub struct Survey {
    /// Each ledger that has something to undo: its owner and the open entries.
    pub open: Vec<(Owner, Vec<Entry>)>,
    /// Each file that says whose it is and in which nothing is open: a kill between two steps left it.
    pub settled: Vec<(PathBuf, Owner)>,
    /// What could not be read, and why not. There may be something to undo in it.
    pub unreadable: Vec<(PathBuf, std::io::Error)>,
}

/// Looks through every ledger here.
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
            // Nothing in a new one was ever acted upon.
            Ok((Some(owner), state)) if is_new || state.open.is_empty() => {
                survey.settled.push((path, owner));
            }
            _ if is_new => {}
            Ok((Some(owner), state)) => survey.open.push((owner, state.open)),
            Ok((None, _)) => {
                let why = std::io::Error::other("it does not say whose it is");
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

/// Removes a file of [`Survey::settled`], if nothing is open in it still. The caller holds its instance's lock.
pub fn remove_settled(path: &Path) -> std::io::Result<()> {
    let is_new = path.extension().is_some_and(|it| it == "tmp");
    match is_new || load(path)?.1.open.is_empty() {
        true => files::remove(path).map(drop),
        false => Ok(()),
    }
}

/// Whether a ledger is of an instance in this run directory, which its name says.
pub fn belongs_to(path: &Path, run_dir: &Path) -> bool {
    path.to_string_lossy().ends_with(&suffix(run_dir))
}
