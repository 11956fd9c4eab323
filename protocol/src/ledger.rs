//! What an instance made in the world, written down before it is made, so that a later `run`, `cleanup` or `gc` can undo
//! it after SIGKILL or a power-off. One file of JSON lines per instance; whoever uses it holds the instance's lock.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::env::Env;
use crate::error::StageError;
use crate::files;

/// One outside resource, intended or made, and not yet undone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Unique within the ledger.
    pub id: u64,
    /// The run that wrote it.
    pub run: String,
    /// What kind of resource; the stage's own word.
    pub what: String,
    /// What the stage needs to find and undo it. Never a secret.
    pub data: Value,
}

/// Who the ledger belongs to: the file's first line, for `gc`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Kind of stage.
    pub kind: String,
    /// Instance name.
    pub instance: String,
    /// Its run directory.
    pub run_dir: PathBuf,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Owner(Owner),
    Intend(Entry),
    Settle(u64),
}

/// The ledger of one instance. Clones share it.
#[derive(Clone, Debug)]
pub struct Ledger {
    /// `None` for a verb that makes nothing.
    path: Option<Arc<PathBuf>>,
    run: Arc<str>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    open: Vec<Entry>,
    next: u64,
}

/// An entry that the running stage will settle itself.
#[derive(Clone, Debug)]
pub struct Ticket {
    ledger: Ledger,
    id: u64,
}

/// Where all ledgers of this user are.
pub fn directory(env: &Env) -> PathBuf {
    env.path("XDG_STATE_HOME")
        .unwrap_or_else(|| env.home().join(".local/state"))
        .join("devcluster-stages")
}

/// Every ledger here that has something to undo: its owner and the open entries.
pub fn all(env: &Env) -> Vec<(Owner, Vec<Entry>)> {
    let files = std::fs::read_dir(directory(env))
        .into_iter()
        .flatten()
        .flatten();
    let mut found: Vec<_> = files
        .filter(|f| f.path().extension().is_some_and(|e| e == "jsonl"))
        .filter_map(|f| {
            let (owner, state) = load(&f.path()).ok()?;
            Some((owner?, state.open))
        })
        .filter(|(_, open)| !open.is_empty())
        .collect();
    found.sort_by(|a, b| (&a.0.run_dir, &a.0.instance).cmp(&(&b.0.run_dir, &b.0.instance)));
    found
}

fn load(path: &Path) -> std::io::Result<(Option<Owner>, State)> {
    let bytes = files::read(path)?.unwrap_or_default();
    let mut state = State::default();
    let mut owner = None;
    // A line torn by a power-off was never acted upon: it is passed over.
    for line in bytes
        .split(|b| *b == b'\n')
        .filter_map(|l| serde_json::from_slice(l).ok())
    {
        match line {
            Line::Owner(o) => owner = Some(o),
            Line::Intend(entry) => {
                state.next = state.next.max(entry.id + 1);
                state.open.push(entry);
            }
            Line::Settle(id) => state.open.retain(|e| e.id != id),
        }
    }
    Ok((owner, state))
}

impl Ledger {
    /// Opens the ledger of an instance and drops what is settled from the file.
    pub fn open(env: &Env, owner: &Owner, run: &str) -> Result<Ledger, StageError> {
        let directory = directory(env);
        files::private_dir(&directory, "ledger directory")?;
        let hash = fnv1a(owner.run_dir.as_os_str().as_encoded_bytes());
        let path = directory.join(format!("{}@{hash:016x}.jsonl", owner.instance));
        let failed =
            |e: std::io::Error| StageError::io(format!("cannot use {}", path.display()), &e);
        let (_, state) = load(&path).map_err(failed)?;
        let mut text = Vec::new();
        let lines = std::iter::once(Line::Owner(owner.clone()))
            .chain(state.open.iter().cloned().map(Line::Intend));
        for line in lines {
            serde_json::to_writer(&mut text, &line).map_err(|e| failed(e.into()))?;
            text.push(b'\n');
        }
        files::replace(&path, &text, true).map_err(failed)?;
        Ok(Ledger {
            path: Some(Arc::new(path)),
            run: run.into(),
            state: Arc::new(Mutex::new(state)),
        })
    }

    /// A ledger without a file, for a verb that only looks.
    pub(crate) fn detached() -> Ledger {
        Ledger {
            path: None,
            run: "".into(),
            state: Arc::default(),
        }
    }

    /// Writes down, durably, what is about to be made. Make it only after this returned.
    pub fn intend(&self, what: &str, data: Value) -> Result<Ticket, StageError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = Entry {
            id: state.next,
            run: self.run.to_string(),
            what: what.to_owned(),
            data,
        };
        self.append(&Line::Intend(entry.clone()))?;
        state.next += 1;
        let ticket = Ticket {
            ledger: self.clone(),
            id: entry.id,
        };
        state.open.push(entry);
        Ok(ticket)
    }

    /// What was intended and not settled, oldest first.
    pub fn entries(&self) -> Vec<Entry> {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .open
            .clone()
    }

    /// The ticket of an entry that an earlier run wrote, for a run that goes on with the resource.
    pub fn take_up(&self, entry: &Entry) -> Ticket {
        Ticket {
            ledger: self.clone(),
            id: entry.id,
        }
    }

    pub(crate) fn settle(&self, id: u64) -> Result<(), StageError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.append(&Line::Settle(id))?;
        state.open.retain(|e| e.id != id);
        Ok(())
    }

    fn append(&self, line: &Line) -> Result<(), StageError> {
        let Some(path) = &self.path else {
            return Ok(());
        };
        let failed =
            |e: std::io::Error| StageError::io(format!("cannot write {}", path.display()), &e);
        let mut bytes = serde_json::to_vec(line).map_err(|e| failed(e.into()))?;
        bytes.push(b'\n');
        let mut file = files::open_append(path).map_err(failed)?;
        file.write_all(&bytes)
            .and_then(|()| file.sync_data())
            .map_err(failed)
    }

    /// Removes the file when there is nothing left to undo.
    pub(crate) fn close(&self) {
        if let Some(path) = self.path.as_ref().filter(|_| self.entries().is_empty()) {
            drop(files::remove(path));
        }
    }
}

impl Ticket {
    /// The resource is gone, or was never made.
    pub fn settle(self) -> Result<(), StageError> {
        self.ledger.settle(self.id)
    }
}

/// A short stable name for a path; not for anything that an attacker chooses.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, b| {
        (hash ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setup() -> (tempfile::TempDir, Env, Owner) {
        let dir = tempfile::tempdir().unwrap();
        let env = Env::from_pairs([("XDG_STATE_HOME", dir.path().to_str().unwrap())]);
        let owner = Owner {
            kind: "tunnel".into(),
            instance: "t".into(),
            run_dir: "/run/x".into(),
        };
        (dir, env, owner)
    }

    #[test]
    fn an_intent_outlives_its_run_until_it_is_settled() {
        let (_dir, env, owner) = setup();
        let first = Ledger::open(&env, &owner, "aa").unwrap();
        let kept = first.intend("listener", Value::from(9300)).unwrap();
        first
            .intend("socket", Value::from("/tmp/x"))
            .unwrap()
            .settle()
            .unwrap();
        drop(first);
        let second = Ledger::open(&env, &owner, "bb").unwrap();
        let open = second.entries();
        assert_eq!(
            (open.len(), open[0].what.as_str(), open[0].run.as_str()),
            (1, "listener", "aa")
        );
        assert_eq!(all(&env), [(owner.clone(), open.clone())]);
        assert!(second.intend("next", Value::Null).unwrap().id > open[0].id);
        kept.settle().unwrap();
        assert_eq!(Ledger::open(&env, &owner, "cc").unwrap().entries().len(), 1);
    }

    #[test]
    fn a_torn_last_line_is_passed_over_and_an_empty_ledger_leaves_no_file() {
        let (dir, env, owner) = setup();
        let ledger = Ledger::open(&env, &owner, "aa").unwrap();
        let ticket = ledger.intend("x", Value::Null).unwrap();
        let mut file = files::open_append(ledger.path.as_ref().unwrap()).unwrap();
        file.write_all(b"{\"intend\":{\"id\":9,").unwrap();
        let again = Ledger::open(&env, &owner, "bb").unwrap();
        assert_eq!(again.entries().len(), 1);
        again.settle(ticket.id).unwrap();
        again.close();
        assert_eq!(
            std::fs::read_dir(dir.path().join("devcluster-stages"))
                .unwrap()
                .count(),
            0
        );
    }
}
