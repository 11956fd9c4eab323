//! Who an instance is, over all of its runs: a random id for each machine, user, run directory and instance name. What an
//! instance makes for itself is named after its identity, and it recognizes its own after SIGKILL, a crash or a reboot.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::codes;
use crate::env::Env;
use crate::error::StageError;
use crate::files;
use crate::ledger::{self, fnv1a};
use crate::runtime::run_id;

/// The format of state files and of annotations on objects. Releases without a field for it have format 1.
pub const FORMAT: u64 = 2;

/// Refuses a format that a newer program wrote; `what` names the place.
pub fn check_format(found: u64, what: &str) -> Result<(), StageError> {
    if found <= FORMAT {
        return Ok(());
    }
    let message = format!(
        "{what} has format {found}, of a newer release; this program reads formats up to {FORMAT}"
    );
    Err(StageError::new(codes::FORMAT_NEWER, message))
}

/// The identity of an instance, or of a run directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity(String);

impl Identity {
    /// 32 hex digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first 8 of them, for names.
    pub fn short(&self) -> &str {
        self.0.get(..8).unwrap_or(&self.0)
    }

    /// A number that is the same in every release.
    pub fn hash(&self, salt: &str) -> u64 {
        fnv1a([self.as_str(), salt].concat().as_bytes())
    }

    fn random() -> Identity {
        Identity(run_id() + &run_id())
    }
}

/// The content of an identity's file.
#[derive(Serialize, Deserialize)]
struct Content {
    format: u64,
    id: String,
    /// For people.
    #[serde(default)]
    run_dir: PathBuf,
}

/// Where the identities of a run directory are stored.
pub(crate) struct Identities {
    directory: PathBuf,
    run_dir: PathBuf,
    /// `@` and a hash of machine, user and run directory.
    suffix: String,
    writes: bool,
}

/// The machine's id, for a machine without one.
const MACHINE: &str = "machine.id";

impl Identities {
    /// Without `writes` an identity that does not exist yet is random in each process.
    pub(crate) fn open(env: &Env, run_dir: &Path, writes: bool) -> Result<Identities, StageError> {
        let directory = ledger::directory(env);
        if writes {
            files::private_dir(&directory, "state directory")?;
        }
        let run_dir = run_dir
            .canonicalize()
            .unwrap_or_else(|_| run_dir.to_owned());
        let machine = match machine_id() {
            Some(machine) => machine,
            None => get_or_create(&directory.join(MACHINE), &directory, writes)?.0,
        };
        let user = rustix::process::geteuid().as_raw();
        let mut key = format!("{machine}\0{user}\0").into_bytes();
        key.extend_from_slice(run_dir.as_os_str().as_encoded_bytes());
        Ok(Identities {
            directory,
            run_dir,
            suffix: format!("@{:016x}.id", fnv1a(&key)),
            writes,
        })
    }

    /// That of an instance; of the run directory itself if the name is empty.
    pub(crate) fn get(&self, instance: &str) -> Result<Identity, StageError> {
        get_or_create(&self.path(instance), &self.run_dir, self.writes)
    }

    /// Removes that of an instance, and with the last one that of the run directory.
    pub(crate) fn remove(&self, instance: &str) -> std::io::Result<()> {
        files::remove(&self.path(instance))?;
        let entries = std::fs::read_dir(&self.directory)?.flatten();
        let mut names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        match names.any(|name| name.ends_with(&self.suffix) && name != self.suffix) {
            true => Ok(()),
            false => files::remove(&self.path("")),
        }
    }

    fn path(&self, instance: &str) -> PathBuf {
        self.directory.join(format!("{instance}{}", self.suffix))
    }
}

/// The id that the system has of this machine.
pub(crate) fn machine_id() -> Option<String> {
    let id = std::fs::read_to_string("/etc/machine-id").ok()?;
    let id = id.trim();
    let is_hex = id.len() == 32 && id.chars().all(|c| c.is_ascii_hexdigit());
    is_hex.then(|| id.to_owned())
}

/// Reads an identity, or creates it. The lock on the directory keeps stages that start together apart.
fn get_or_create(path: &Path, run_dir: &Path, writes: bool) -> Result<Identity, StageError> {
    let failed = |e| StageError::io(format!("cannot use {}", path.display()), &e);
    if let Some(known) = read(path)? {
        return Ok(known);
    }
    let new = Identity::random();
    if !writes {
        return Ok(new);
    }
    let directory = path.parent().unwrap_or(Path::new("/"));
    let lock = File::open(directory).map_err(failed)?;
    flock(&lock, FlockOperation::LockExclusive).map_err(|e| failed(e.into()))?;
    if let Some(known) = read(path)? {
        return Ok(known);
    }
    let content = Content {
        format: FORMAT,
        id: new.0.clone(),
        run_dir: run_dir.to_owned(),
    };
    let text = serde_json::to_vec(&content)
        .map_err(|e| StageError::internal("an identity is not JSON").source(&e))?;
    // In place: a run that is killed here leaves an incomplete file, which does not count, and no second one.
    let written = files::open(path).and_then(|mut file| {
        file.set_len(0)?;
        file.write_all(&text)?;
        file.sync_all()
    });
    written.map_err(failed)?;
    Ok(new)
}

/// `None`: there is no such file, or it is incomplete.
fn read(path: &Path) -> Result<Option<Identity>, StageError> {
    let shown = path.display();
    let bytes = files::read(path);
    let bytes = bytes.map_err(|e| StageError::io(format!("cannot read {shown}"), &e))?;
    let Ok(content) = serde_json::from_slice::<Content>(&bytes.unwrap_or_default()) else {
        return Ok(None);
    };
    check_format(content.format, &shown.to_string())?;
    Ok(Some(Identity(content.id)))
}

#[cfg(test)]
mod tests;
