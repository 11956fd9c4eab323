//! Every file and directory that a program reads or writes goes through here.
//!
//! What is ours (run directory, state, locks, outputs) is private: a regular file of this user, opened through no link, in
//! directories that no other user can change ([`trust`]). A file that the user names may be a link and may belong to others.
//! No call blocks on a FIFO.

pub mod trust;

use std::fs::{File, Metadata, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{
    AtFlags, CWD, FlockOperation, OFlags, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, flock,
    utimensat,
};
use rustix::io::Errno;

use crate::codes;
use crate::error::StageError;
use trust::{TRUST, Untrusted};

/// The largest file that a stage reads as a whole.
pub(crate) const MAX_FILE: u64 = 4 << 20;

/// Do not block on a FIFO in the place of a file.
const NEVER_BLOCK: OFlags = OFlags::NONBLOCK.union(OFlags::NOCTTY);

fn options(follow: OFlags) -> OpenOptions {
    let mut options = OpenOptions::new();
    options.custom_flags(NEVER_BLOCK.union(follow).bits() as i32);
    options
}

/// The same file, if it is regular.
fn regular(file: File) -> std::io::Result<(File, Metadata)> {
    let meta = file.metadata()?;
    match meta.is_file() {
        true => Ok((file, meta)),
        false => Err(std::io::Error::other("it is not a regular file")),
    }
}

/// The same file, if it is one of ours.
fn private(file: File) -> std::io::Result<File> {
    let (file, meta) = regular(file)?;
    match TRUST.owns(&meta) {
        true => Ok(file),
        false => Err(std::io::Error::other(format!(
            "it belongs to user {}",
            meta.uid()
        ))),
    }
}

/// Opens a private file for reading and writing. Creates it with mode 0600 if it does not exist.
pub(crate) fn open(path: &Path) -> std::io::Result<File> {
    let mut options = options(OFlags::NOFOLLOW);
    let options = options.read(true).write(true).create(true).mode(0o600);
    private(options.truncate(false).open(path)?)
}

/// Opens a private file.
pub fn open_to_read(path: &Path) -> std::io::Result<File> {
    private(options(OFlags::NOFOLLOW).read(true).open(path)?)
}

/// Reads a private file; `None` when it does not exist.
pub fn read(path: &Path) -> std::io::Result<Option<Vec<u8>>> {
    read_at_most(path, MAX_FILE)
}

/// The same with another limit, since parsed content takes many times the size of the file.
pub(crate) fn read_at_most(path: &Path, limit: u64) -> std::io::Result<Option<Vec<u8>>> {
    match open_to_read(path) {
        Ok(file) => read_whole(file, limit).map(Some),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

fn read_whole(file: File, limit: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 <= limit {
        true => Ok(bytes),
        false => Err(std::io::Error::other(format!("larger than {limit} bytes"))),
    }
}

/// Opens a file that the user names: it may be a link to a regular file.
pub fn open_named(path: &Path) -> std::io::Result<File> {
    regular(options(OFlags::empty()).read(true).open(path)?).map(|(file, _)| file)
}

/// The largest file of a user. Parsed YAML takes about sixty times the size of the file.
const MAX_TEXT: u64 = 1 << 20;

/// Reads a file that the user names, of at most 1 MiB.
pub fn read_bytes(path: &Path) -> std::io::Result<Vec<u8>> {
    read_named(path, MAX_TEXT)
}

/// The same with another limit.
pub fn read_named(path: &Path, limit: u64) -> std::io::Result<Vec<u8>> {
    read_whole(open_named(path)?, limit)
}

/// Reads a text file that the user names, of at most 1 MiB.
pub fn read_text(path: &Path) -> std::io::Result<String> {
    let invalid = |e| std::io::Error::new(std::io::ErrorKind::InvalidData, e);
    String::from_utf8(read_bytes(path)?).map_err(invalid)
}

/// Writes a file that the user names and that others may read. A link is followed; a device is written to.
pub fn write_named(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut options = options(OFlags::empty());
    let file = options
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)?;
    let mut file = match file.metadata()?.file_type() {
        kind if kind.is_char_device() => file,
        _ => regular(file)?.0,
    };
    if file.metadata()?.is_file() {
        file.set_len(0)?;
    }
    file.write_all(bytes)
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
            return options(OFlags::NOFOLLOW)
                .write(true)
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
        Some(parent) if sync => {
            let named = !parent.as_os_str().is_empty();
            let parent = if named { parent } else { Path::new(".") };
            options(OFlags::DIRECTORY)
                .read(true)
                .open(parent)?
                .sync_all()
        }
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
        // The previous writer may rename it meanwhile: then it is the finished file, and not locked.
        if let Some(Locked { file, .. }) = Locked::try_at(path)? {
            let meta = file.metadata()?;
            let me = rustix::process::geteuid().as_raw();
            if meta.uid() != me || meta.nlink() != 1 {
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

/// A locked private file. Dropping it releases the lock; the kernel releases it when the process dies.
#[derive(Debug)]
pub(crate) struct Locked {
    pub(crate) file: File,
    path: PathBuf,
}

impl Locked {
    /// Creates the file and locks it. `None` while another process holds the lock.
    pub(crate) fn try_at(path: &Path) -> std::io::Result<Option<Locked>> {
        loop {
            let file = open(path)?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Err(Errno::WOULDBLOCK) => return Ok(None),
                locked => locked?,
            }
            let path = path.to_owned();
            let locked = Locked { file, path };
            // Its last holder may have removed it meanwhile.
            if locked.is_current() {
                return Ok(Some(locked));
            }
        }
    }

    /// Whether it is still the file at its path: otherwise another process can hold a lock there.
    pub(crate) fn is_current(&self) -> bool {
        let there = std::fs::symlink_metadata(&self.path);
        let same = |a: &Metadata, b: &Metadata| (a.dev(), a.ino()) == (b.dev(), b.ino());
        self.file
            .metadata()
            .is_ok_and(|ours| there.is_ok_and(|there| same(&ours, &there)))
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

/// How often a directory in use needs [`keep`].
pub const KEEP_INTERVAL: Duration = Duration::from_secs(3600);

/// Sets the access time of everything in a directory, and of the directory: cleaners of temporary files remove what was not
/// used for days.
pub fn keep(dir: &Path) {
    let times = Timestamps {
        last_access: timestamp(UTIME_NOW),
        last_modification: timestamp(UTIME_OMIT),
    };
    let entries = dir.read_dir().into_iter().flatten().flatten();
    for entry in entries {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => keep(&entry.path()),
            _ => touch(&entry.path(), &times),
        }
    }
    touch(dir, &times);
}

fn timestamp(special: i64) -> Timespec {
    Timespec {
        tv_sec: 0,
        tv_nsec: special,
    }
}

fn touch(path: &Path, times: &Timestamps) {
    // A file that cannot be touched may vanish, as without this.
    let _ = utimensat(CWD, path, times, AtFlags::SYMLINK_NOFOLLOW);
}

/// Creates a directory that only this user can use, or checks that it is one. Returns its canonical path.
pub fn private_dir(path: &Path, what: &str) -> Result<PathBuf, StageError> {
    let is_link = path.symlink_metadata().is_ok_and(|meta| meta.is_symlink());
    if is_link {
        let message = format!("the {what} {} is a link", path.display());
        return Err(unsafe_dir(message).hint("name the directory itself"));
    }
    let dir = own_dir(path, what)?;
    let meta = dir.metadata().map_err(|e| unreadable(&dir, what, &e))?;
    let mode = meta.mode() & 0o777;
    if mode & 0o022 == 0 {
        return Ok(dir);
    }
    let shown = dir.display();
    let message = format!("the {what} {shown} is writable by other users (mode {mode:o})");
    Err(unsafe_dir(message).hint(format!("make it private: chmod 700 {shown}")))
}

/// Creates a directory with mode 0700, or checks that it belongs to this user and that no one else can write to it, except the
/// user's own group. Returns its canonical path.
pub fn own_dir(path: &Path, what: &str) -> Result<PathBuf, StageError> {
    if check_own_dir(path, what)?.is_none() {
        let mut private = std::fs::DirBuilder::new();
        let made = private.recursive(true).mode(0o700).create(path);
        made.map_err(|e| {
            StageError::io(format!("cannot create the {what} {}", path.display()), &e)
        })?;
    }
    let dir = check_own_dir(path, what)?;
    dir.ok_or_else(|| StageError::internal(format!("the {what} vanished")))
}

/// The canonical path of a directory as [`own_dir`] creates it. `None`: it does not exist, and can be created.
pub fn check_own_dir(path: &Path, what: &str) -> Result<Option<PathBuf>, StageError> {
    let untrusted = |error| not_trusted(path, what, error);
    let found = trust::resolve(path).map_err(untrusted)?;
    if !found.missing.is_empty() {
        return Ok(None);
    }
    let dir = trust::trusted(&found.path).map_err(untrusted)?;
    let meta = dir.metadata().map_err(|e| unreadable(&dir, what, &e))?;
    let (shown, me) = (dir.display(), rustix::process::geteuid().as_raw());
    if !meta.is_dir() {
        return Err(unsafe_dir(format!("the {what} {shown} is not a directory")));
    }
    if meta.uid() != me {
        let owner = meta.uid();
        let message =
            format!("the {what} {shown} belongs to user {owner}, not to this user ({me})");
        return Err(unsafe_dir(message).hint("name a directory that you own"));
    }
    Ok(Some(dir))
}

fn unreadable(dir: &Path, what: &str, error: &std::io::Error) -> StageError {
    let shown = dir.display();
    StageError::io(
        format!("cannot read the attributes of the {what} {shown}"),
        error,
    )
}

fn not_trusted(path: &Path, what: &str, error: Untrusted) -> StageError {
    let shown = path.display();
    match error {
        Untrusted::Replaceable { place, why } => {
            let place = place.display();
            unsafe_dir(format!(
                "other users can replace the {what} {shown}: {place} {why}"
            ))
            .hint(format!(
                "name a directory elsewhere, or remove the write permission of others: chmod go-w {place}"
            ))
        }
        Untrusted::Io { place, source } => StageError::io(
            format!("cannot use the {what} {shown}: {}", place.display()),
            &source,
        ),
    }
}

fn unsafe_dir(message: String) -> StageError {
    StageError::new(codes::UNSAFE_DIR, message)
}

#[cfg(test)]
mod tests;
