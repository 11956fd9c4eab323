//! Small private files: mode 0600, replaced as a whole, never opened through a link.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, OFlags, flock};

use crate::codes;
use crate::error::StageError;

/// The largest file that a stage reads as a whole.
pub(crate) const MAX_FILE: u64 = 4 << 20;

/// Follow no links, and do not block on a FIFO in the place of a file.
const SAFE_FLAGS: i32 = OFlags::NOFOLLOW
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY)
    .bits() as i32;

/// Opens a private file for reading and writing. Creates it with mode 0600 if it does not exist.
pub(crate) fn open(path: &Path) -> std::io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(SAFE_FLAGS)
        .open(path)
}

pub(crate) fn open_to_read(path: &Path) -> std::io::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(SAFE_FLAGS)
        .open(path)
}

/// Reads a private file; `None` when it does not exist.
pub fn read(path: &Path) -> std::io::Result<Option<Vec<u8>>> {
    read_at_most(path, MAX_FILE)
}

/// The same with another limit, since parsed content takes many times the size of the file.
pub(crate) fn read_at_most(path: &Path, limit: u64) -> std::io::Result<Option<Vec<u8>>> {
    let file = match open_to_read(path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    if !file.metadata()?.is_file() {
        return Err(std::io::Error::other("not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(std::io::Error::other(format!("larger than {limit} bytes")));
    }
    Ok(Some(bytes))
}

/// The largest file of a user. Parsed YAML takes about sixty times the size of the file.
const MAX_TEXT: u64 = 1 << 20;

/// Reads a file of a user, of at most 1 MiB. It may be a link or a pipe.
pub fn read_bytes(path: &Path) -> std::io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let mut bytes = Vec::new();
    file.take(MAX_TEXT + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_TEXT {
        return Err(std::io::Error::other("larger than 1 MiB"));
    }
    Ok(bytes)
}

/// The same as text.
pub fn read_text(path: &Path) -> std::io::Result<String> {
    let invalid = |e| std::io::Error::new(std::io::ErrorKind::InvalidData, e);
    String::from_utf8(read_bytes(path)?).map_err(invalid)
}

/// How long to wait for another writer of the same file.
const WRITER_TIMEOUT: Duration = Duration::from_secs(2);

/// Replaces a file: writes a temporary file beside it, syncs it, renames it. The temporary file has a fixed name, so that a
/// killed run leaves at most one, which the next run replaces; its lock keeps two writers apart. With `sync` the content
/// survives a power-off. A device, such as `/dev/null`, is written to; any other file that is not regular is refused.
pub fn replace(path: &Path, bytes: &[u8], sync: bool) -> std::io::Result<()> {
    // This follows a link, such as `/dev/stdout`; the rename replaces a link to a regular file.
    match std::fs::metadata(path).map(|there| there.file_type()) {
        Ok(kind) if kind.is_char_device() => {
            return OpenOptions::new()
                .write(true)
                .custom_flags(SAFE_FLAGS)
                .open(path)?
                .write_all(bytes);
        }
        Ok(kind) if !kind.is_file() => {
            return Err(std::io::Error::other("it is not a regular file"));
        }
        _ => {}
    }
    let temporary = temporary_path(path)?;
    let mut file = open_temporary(&temporary)?;
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    let written = file
        .set_len(0)
        .and_then(|()| file.write_all(bytes))
        .and_then(|()| if sync { file.sync_all() } else { Ok(()) });
    if let Err(e) = written.and_then(|()| std::fs::rename(&temporary, path)) {
        drop(std::fs::remove_file(&temporary));
        return Err(e);
    }
    match path.parent() {
        Some(parent) if sync => File::open(if parent.as_os_str().is_empty() {
            Path::new(".")
        } else {
            parent
        })?
        .sync_all(),
        _ => Ok(()),
    }
}

fn temporary_path(path: &Path) -> std::io::Result<PathBuf> {
    let name = path
        .file_name()
        .ok_or_else(|| std::io::Error::other("not a file name"))?;
    Ok(path.with_file_name(format!(".{}.tmp", name.to_string_lossy())))
}

/// Opens the temporary file as its only writer.
fn open_temporary(path: &Path) -> std::io::Result<File> {
    let deadline = Instant::now() + WRITER_TIMEOUT;
    loop {
        let file = open(path)?;
        let locked = flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok();
        // The previous writer may have renamed it meanwhile: then this is the finished file.
        let ours = file.metadata()?;
        let current = std::fs::symlink_metadata(path).is_ok_and(|there| ours.ino() == there.ino());
        if locked && current {
            let me = rustix::process::geteuid().as_raw();
            if !ours.is_file() || ours.uid() != me || ours.nlink() != 1 {
                let why = format!(
                    "{} exists and is not a private file of this user",
                    path.display()
                );
                return Err(std::io::Error::other(why));
            }
            return Ok(file);
        }
        if Instant::now() >= deadline {
            return Err(std::io::Error::other("another process is writing it"));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Removes a file, and the temporary file that a killed [`replace`] may have left. Succeeds when they do not exist.
pub fn remove(path: &Path) -> std::io::Result<()> {
    remove_one(&temporary_path(path)?)?;
    remove_one(path)
}

fn remove_one(path: &Path) -> std::io::Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// Creates a directory that only this user can use, or checks that it is one.
pub(crate) fn private_dir(path: &Path, what: &str) -> Result<(), StageError> {
    let shown = path.display();
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|e| StageError::io(format!("cannot create the {what} {shown}"), &e))?;
    let meta = std::fs::symlink_metadata(path).map_err(|e| {
        StageError::io(
            format!("cannot read the attributes of the {what} {shown}"),
            &e,
        )
    })?;
    if let Some(why) = why_not_private(&meta) {
        return Err(unsafe_dir(format!("the {what} {shown} {why}"))
            .hint("name a directory that you own, or make this one private: chmod 700"));
    }
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let Some(parent) = absolute.parent() else {
        return Ok(());
    };
    match std::fs::metadata(parent)
        .ok()
        .and_then(|m| why_replaceable(&m))
    {
        None => Ok(()),
        Some(why) => {
            let parent = parent.display();
            Err(unsafe_dir(format!(
                "other users can replace the {what} {shown}: {parent} {why}"
            ))
            .hint(format!(
                "name a directory elsewhere, or remove the write permission of others: chmod go-w {parent}"
            )))
        }
    }
}

fn unsafe_dir(message: String) -> StageError {
    StageError::new(codes::UNSAFE_DIR, message)
}

fn why_not_private(dir: &Metadata) -> Option<String> {
    let me = rustix::process::geteuid().as_raw();
    let mode = dir.mode() & 0o777;
    if !dir.is_dir() {
        return Some("is a link; links are not followed".into());
    }
    if dir.uid() != me {
        return Some(format!(
            "belongs to user {}, not to this user ({me})",
            dir.uid()
        ));
    }
    (mode & 0o022 != 0).then(|| format!("is writable by other users (mode {mode:o})"))
}

/// The user's own group may write to the parent: with umask 002, home directories have this mode, and the group has no
/// other member.
fn why_replaceable(parent: &Metadata) -> Option<String> {
    let (me, group) = (
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    );
    let mode = parent.mode() & 0o7777;
    if parent.uid() != me && parent.uid() != 0 {
        return Some(format!("belongs to user {}", parent.uid()));
    }
    let others = mode & 0o002 != 0 || (mode & 0o020 != 0 && parent.gid() != group);
    (others && mode & 0o1000 == 0).then(|| format!("is writable by other users (mode {mode:o})"))
}

#[cfg(test)]
mod tests;
