//! The file of a ledger: JSON lines, appended durably, rewritten when it has grown.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Entry, Owner, State};
use crate::error::StageError;
use crate::files::{self, Locked};
use crate::identity::FORMAT;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Line {
    /// First, so that an older program can refuse the rest.
    Format(u64),
    Owner(Owner),
    /// Also replaces an entry with the same id.
    Intend(Entry),
    Settle(u64),
}

#[derive(Debug)]
pub(super) struct Home {
    pub(super) path: PathBuf,
    pub(super) owner: Owner,
    /// `None` on a file system without locks.
    pub(super) lock: Option<Locked>,
}

pub(super) fn load(path: &Path) -> std::io::Result<(Option<Owner>, State)> {
    let bytes = files::read(path)?.unwrap_or_default();
    let mut state = State {
        format: 1,
        ..State::default()
    };
    let mut owner = None;
    // A line that a power-off tore was never acted upon: it is skipped.
    for line in bytes
        .split(|b| *b == b'\n')
        .filter_map(|l| serde_json::from_slice(l).ok())
    {
        match line {
            Line::Format(format) => state.format = format,
            Line::Owner(o) => owner = Some(o),
            Line::Intend(entry) => {
                state.open.retain(|e| e.id != entry.id);
                state.next = state.next.max(entry.id.saturating_add(1));
                state.open.push(entry);
            }
            Line::Settle(id) => state.open.retain(|e| e.id != id),
        }
    }
    Ok((owner, state))
}

impl Home {
    pub(super) fn failed(&self, error: &std::io::Error) -> StageError {
        StageError::io(format!("cannot use {}", self.path.display()), error)
    }

    /// Rewrites the file with these entries and returns its size.
    pub(super) fn write_whole(&self, open: &[Entry]) -> std::io::Result<u64> {
        let mut text = Vec::new();
        let lines = [Line::Format(FORMAT), Line::Owner(self.owner.clone())]
            .into_iter()
            .chain(open.iter().cloned().map(Line::Intend));
        for line in lines {
            serde_json::to_writer(&mut text, &line)?;
            text.push(b'\n');
        }
        if text.len() as u64 > files::MAX_FILE {
            return Err(std::io::Error::other("larger than 4 MiB"));
        }
        files::replace(&self.path, &text, true)?;
        Ok(text.len() as u64)
    }

    /// Appends a line durably. Returns false when the file is new or would exceed `limit`: then it has to be rewritten.
    pub(super) fn append(&self, line: &Line, limit: u64) -> std::io::Result<bool> {
        let mut file = files::open(&self.path)?;
        let length = file.seek(SeekFrom::End(0))?;
        let mut bytes = serde_json::to_vec(line)?;
        bytes.push(b'\n');
        if length == 0 || length + bytes.len() as u64 > limit {
            return Ok(false);
        }
        if !ends_with_newline(&mut file)? {
            bytes.insert(0, b'\n');
        }
        let written = file.write_all(&bytes).and_then(|()| file.sync_data());
        if written.is_err() {
            drop(file.set_len(length));
        }
        written.map(|()| true)
    }
}

/// Reads the last byte and leaves the file position at the end.
fn ends_with_newline(file: &mut File) -> std::io::Result<bool> {
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}
