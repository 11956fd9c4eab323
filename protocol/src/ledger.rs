//! What an instance creates outside of its process, recorded before it is created, so that a later `run`, `cleanup` or
//! `gc` can remove it after SIGKILL or a power-off. One file of JSON lines per instance. It has a lock of its
//! own, since the run directory with the instance's lock may be removed.

mod file;
mod survey;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::clock::{Age, Moment};
use crate::codes;
use crate::env::Env;
use crate::error::StageError;
use crate::files::{self, Locked};
use crate::identity::check_format;
use file::{Home, Line, load};

pub use survey::{Survey, belongs_to, remove_settled, survey};

/// One resource, intended or created, and not yet removed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Unique within the ledger.
    pub id: u64,
    /// The run that wrote it.
    pub run: String,
    /// The kind of resource, named by the stage.
    pub what: String,
    /// What the stage needs to find and remove it. Never a secret.
    pub data: Value,
    /// Set while it is kept for a time, although its run has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parked: Option<Parked>,
    /// How long its place is out of reach.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub away: Option<Age>,
}

/// A resource that stays for a time after its run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Parked {
    /// What stays and until when, for people. Empty: it is not shown.
    pub what: String,
    /// How long, in seconds.
    pub seconds: u64,
    /// How long it is parked by now.
    #[serde(default)]
    pub age: Age,
}

impl Parked {
    /// For so long from now on.
    pub fn new(what: impl Into<String>, seconds: u64) -> Parked {
        let mut parked = Parked {
            what: what.into(),
            seconds,
            age: Age::default(),
        };
        parked.is_over();
        parked
    }

    /// The line for people.
    pub fn stays(&self) -> String {
        let what = &self.what;
        format!("keeps {what}; `devcluster-remote gc --now` removes it at once")
    }

    /// Whether its time is over by now.
    pub fn is_over(&mut self) -> bool {
        if let Some(now) = Moment::now() {
            self.age.see(&now);
        }
        self.age.seconds() >= self.seconds
    }
}

/// The instance that a ledger belongs to: the first line of the file, for `gc`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Kind of stage.
    pub kind: String,
    /// Instance name.
    pub instance: String,
    /// Its run directory.
    pub run_dir: PathBuf,
}

/// A ledger larger than this, and than twice its size at the last rewrite, is rewritten with the open entries alone.
const COMPACT: u64 = 256 << 10;

/// The ledger of one instance. Clones share it.
#[derive(Clone, Debug)]
pub struct Ledger {
    /// `None` for a verb that creates nothing.
    home: Option<Arc<Home>>,
    run: Arc<str>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    format: u64,
    open: Vec<Entry>,
    next: u64,
    /// Size of the file after the last rewrite.
    whole: u64,
}

/// An entry that the running stage will settle itself.
#[derive(Clone, Debug)]
pub struct Ticket {
    ledger: Ledger,
    id: u64,
}

impl Entry {
    /// What an entry of this kind stores; `None` for another kind, or if it is not readable.
    pub fn read<T: DeserializeOwned>(&self, what: &str) -> Option<T> {
        let data = (self.what == what).then(|| self.data.clone())?;
        serde_json::from_value(data).ok()
    }

    /// The entry for people: its fields that are texts or numbers.
    pub fn describe(&self) -> String {
        let fields = self.data.as_object().into_iter().flatten();
        let plain = fields.filter_map(|(key, value)| match value {
            Value::String(text) => Some(format!("{key} {text}")),
            Value::Number(number) => Some(format!("{key} {number}")),
            _ => None,
        });
        let plain: Vec<_> = plain.collect();
        match plain.is_empty() {
            true => self.what.clone(),
            false => format!("{}: {}", self.what, plain.join(", ")),
        }
    }
}

/// The directory of all ledgers of this user.
pub fn directory(env: &Env) -> PathBuf {
    env.path("XDG_STATE_HOME")
        .unwrap_or_else(|| env.home().join(".local/state"))
        .join("devcluster-stages")
}

fn file(env: &Env, instance: &str, run_dir: &Path) -> PathBuf {
    directory(env).join(format!("{instance}{}", suffix(run_dir)))
}

fn lock_path(ledger: &Path) -> PathBuf {
    ledger.with_extension("lock")
}

fn has_no_locks(error: &std::io::Error) -> bool {
    let code = Errno::from_io_error(error);
    code.is_some_and(|code| [Errno::NOLCK, Errno::OPNOTSUPP, Errno::NOSYS].contains(&code))
}

/// Whether a process has the ledger of this instance open.
pub fn is_open(env: &Env, owner: &Owner) -> bool {
    let path = lock_path(&file(env, &owner.instance, &owner.run_dir));
    files::open_to_read(&path).is_ok_and(|lock| {
        let shared = FlockOperation::NonBlockingLockShared;
        flock(&lock, shared) == Err(Errno::WOULDBLOCK)
    })
}

fn suffix(run_dir: &Path) -> String {
    let hash = fnv1a(run_dir.as_os_str().as_encoded_bytes());
    format!("@{hash:016x}.jsonl")
}

impl Ledger {
    /// Opens the ledger of an instance and removes settled entries from the file. `None` while another process has it open.
    pub fn open(env: &Env, owner: &Owner, run: &str) -> Result<Option<Ledger>, StageError> {
        files::private_dir(&directory(env), "ledger directory")?;
        let path = file(env, &owner.instance, &owner.run_dir);
        let mut home = Home {
            path,
            owner: owner.clone(),
            lock: None,
        };
        match Locked::try_at(&lock_path(&home.path)) {
            Ok(None) => return Ok(None),
            Ok(locked) => home.lock = locked,
            Err(e) if has_no_locks(&e) => {}
            Err(e) => return Err(home.failed(&e)),
        }
        let (_, mut state) = load(&home.path).map_err(|e| home.failed(&e))?;
        check_format(state.format, &home.path.display().to_string())?;
        state.whole = home.write_whole(&state.open).map_err(|e| home.failed(&e))?;
        Ok(Some(Ledger {
            home: Some(Arc::new(home)),
            run: run.into(),
            state: Arc::new(Mutex::new(state)),
        }))
    }

    /// Whether no other process can open it: its lock is still the file at its path.
    pub(crate) fn is_current(&self) -> bool {
        let lock = self.home.as_ref().and_then(|home| home.lock.as_ref());
        lock.is_none_or(Locked::is_current)
    }

    /// Takes over the ledger of a release that named it after the run directory as given, not after its canonical path.
    pub(crate) fn take_over(env: &Env, owner: &Owner, given: &Path) -> std::io::Result<()> {
        let given = file(env, &owner.instance, &std::path::absolute(given)?);
        let canonical = file(env, &owner.instance, &owner.run_dir);
        match given.exists() && !canonical.exists() {
            true => std::fs::rename(given, canonical),
            false => Ok(()),
        }
    }

    /// A ledger without a file, for a verb that only reads.
    pub(crate) fn detached() -> Ledger {
        Ledger {
            home: None,
            run: "".into(),
            state: Arc::default(),
        }
    }

    /// The same with the entries of an instance's file. Writes nothing.
    pub(crate) fn read(env: &Env, instance: &str, run_dir: &Path) -> Result<Ledger, StageError> {
        let path = file(env, instance, run_dir);
        let failed = |e| StageError::io(format!("cannot read {}", path.display()), &e);
        let (_, state) = load(&path).map_err(failed)?;
        check_format(state.format, &path.display().to_string())?;
        Ok(Ledger {
            state: Arc::new(Mutex::new(state)),
            ..Ledger::detached()
        })
    }

    /// Records a resource durably. Create the resource only after this returns.
    pub fn intend(&self, what: &str, data: Value) -> Result<Ticket, StageError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = Entry {
            id: state.next,
            run: self.run.to_string(),
            what: what.to_owned(),
            data,
            parked: None,
            away: None,
        };
        let mut open = state.open.clone();
        open.push(entry.clone());
        let ticket = self.adopt(&entry);
        self.record(&mut state, &Line::Intend(entry), open)?;
        state.next = state.next.saturating_add(1);
        Ok(ticket)
    }

    /// The entries that are not settled, oldest first.
    pub fn entries(&self) -> Vec<Entry> {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .open
            .clone()
    }

    /// Whether entries can be added.
    pub(crate) fn writes(&self) -> bool {
        self.home.is_some()
    }

    /// Parks an entry.
    pub(crate) fn park(&self, id: u64, parked: Parked) -> Result<(), StageError> {
        self.rewrite(id, |entry| {
            (entry.parked, entry.away) = (Some(parked), None);
        })
    }

    /// Records that an entry's place is out of reach; settles the entry once it has been for so many seconds.
    pub(crate) fn miss(&self, id: u64, seconds: u64) -> Result<(), StageError> {
        let mut age = Age::default();
        self.rewrite(id, |entry| {
            let away = entry.away.get_or_insert_default();
            if let Some(now) = Moment::now() {
                away.see(&now);
            }
            age = away.clone();
        })?;
        match age.seconds() >= seconds {
            true => self.settle(id),
            false => Ok(()),
        }
    }

    fn rewrite(&self, id: u64, change: impl FnOnce(&mut Entry)) -> Result<(), StageError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut open = state.open.clone();
        let Some(entry) = open.iter_mut().find(|entry| entry.id == id) else {
            return Ok(());
        };
        change(entry);
        let line = Line::Intend(entry.clone());
        self.record(&mut state, &line, open)
    }

    /// The ticket of an earlier run's entry, for a run that resumes the resource.
    pub fn adopt(&self, entry: &Entry) -> Ticket {
        Ticket {
            ledger: self.clone(),
            id: entry.id,
        }
    }

    pub(crate) fn settle(&self, id: u64) -> Result<(), StageError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut open = state.open.clone();
        open.retain(|e| e.id != id);
        self.record(&mut state, &Line::Settle(id), open)
    }

    /// Writes a line; these entries are open afterwards.
    fn record(&self, state: &mut State, line: &Line, open: Vec<Entry>) -> Result<(), StageError> {
        if let Some(home) = &self.home {
            if !self.is_current() {
                let message = format!("the lock of {} was removed", home.path.display());
                return Err(StageError::new(codes::LOCK_LOST, message));
            }
            let limit = (state.whole * 2).clamp(COMPACT, files::MAX_FILE);
            let appended = home.append(line, limit).map_err(|e| home.failed(&e))?;
            if !appended {
                state.whole = home.write_whole(&open).map_err(|e| home.failed(&e))?;
            }
        }
        state.open = open;
        Ok(())
    }

    /// Removes the file and its lock when no entry is open.
    pub(crate) fn close(&self) {
        let home = self.home.as_ref();
        if let Some(home) = home.filter(|_| self.entries().is_empty() && self.is_current()) {
            drop(files::remove(&home.path));
            drop(files::remove(&lock_path(&home.path)));
        }
    }
}

impl Ticket {
    /// Whether no other process can have the ledger open.
    pub fn is_current(&self) -> bool {
        self.ledger.is_current()
    }

    /// Settles the entry: the resource is removed, or was never created.
    pub fn settle(self) -> Result<(), StageError> {
        self.ledger.settle(self.id)
    }

    /// Parks the entry: the resource stays for a time after this run.
    pub fn park(self, parked: Parked) -> Result<(), StageError> {
        self.ledger.park(self.id, parked)
    }

    /// The resource is in use by this run again, with this data.
    pub fn reopen(&self, data: Value) -> Result<(), StageError> {
        let run = self.ledger.run.to_string();
        self.ledger.rewrite(self.id, |entry| {
            (entry.run, entry.data) = (run, data);
            (entry.parked, entry.away) = (None, None);
        })
    }
}

/// A short stable hash of a path. Not for input that an attacker chooses.
pub(crate) fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, b| {
        (hash ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests;
