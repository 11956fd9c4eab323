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
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn two_writers_of_one_file_never_mix() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::thread::scope(|scope| {
            for byte in [b'a', b'b'] {
                let path = path.clone();
                scope.spawn(move || {
                    for length in 1..300 {
                        replace(&path, &vec![byte; length * 50], false).unwrap();
                        let read = read(&path).unwrap().unwrap();
                        assert!(!read.is_empty() && read.iter().all(|b| *b == read[0]));
                    }
                });
            }
        });
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_link_is_neither_read_nor_accepted_as_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        let (real, link) = (dir.path().join("real"), dir.path().join("link"));
        std::fs::create_dir(&real).unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        assert_eq!(
            private_dir(&link, "run directory").unwrap_err().code,
            "protocol.unsafe_dir"
        );
        std::fs::write(real.join("f"), "x").unwrap();
        std::os::unix::fs::symlink(real.join("f"), real.join("l")).unwrap();
        assert!(read(&real.join("l")).is_err());
    }

    fn directory(path: &Path, mode: u32) {
        std::fs::create_dir(path).unwrap();
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_directory_that_others_can_write_to_is_refused_and_named() {
        let dir = tempfile::tempdir().unwrap();
        let open = dir.path().join("open");
        directory(&open, 0o777);
        for path in [open.clone(), open.join("inside")] {
            let error = private_dir(&path, "run directory").unwrap_err();
            assert_eq!(error.code, "protocol.unsafe_dir");
            let named = format!("{} is writable by other users", open.display());
            assert!(error.message.contains(&named), "{}", error.message);
        }
        directory(&dir.path().join("grouped"), 0o770);
        assert!(private_dir(&dir.path().join("grouped"), "run directory").is_err());
    }

    #[test]
    fn a_parent_that_the_own_group_can_write_to_is_accepted() {
        let dir = tempfile::tempdir().unwrap();
        let parent = dir.path().join("state");
        directory(&parent, 0o775);
        private_dir(&parent.join("ours"), "ledger directory").unwrap();
        let mut foreign = std::fs::metadata(&parent).unwrap().gid();
        foreign += 1;
        // Only root can give a directory to a group that it is not in.
        if std::os::unix::fs::chown(&parent, None, Some(foreign)).is_ok() {
            let error = private_dir(&parent.join("ours"), "ledger directory").unwrap_err();
            assert!(error.hint.unwrap().contains(parent.to_str().unwrap()));
        }
    }

    #[test]
    fn a_fifo_in_the_place_of_a_file_blocks_no_read_and_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("b.json");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &fifo,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
            0,
        )
        .unwrap();
        assert!(read(&fifo).is_err());
        assert!(replace(&fifo, b"x", false).is_err());
        assert!(std::fs::metadata(&fifo).unwrap().file_type().is_fifo());
    }

    #[test]
    fn a_device_is_written_to_and_a_link_to_a_file_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        replace(Path::new("/dev/null"), b"x", true).unwrap();
        let null = std::fs::metadata("/dev/null").unwrap();
        assert!(null.file_type().is_char_device());
        let (real, link) = (dir.path().join("real"), dir.path().join("link"));
        std::fs::write(&real, "old").unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        replace(&link, b"new", false).unwrap();
        assert_eq!(std::fs::read(&real).unwrap(), b"old");
        assert_eq!(read(&link).unwrap().unwrap(), b"new");
    }

    #[test]
    fn a_temporary_file_that_is_a_hard_link_is_not_written_to() {
        let dir = tempfile::tempdir().unwrap();
        let victim = dir.path().join("victim");
        std::fs::write(&victim, "precious").unwrap();
        std::fs::hard_link(&victim, dir.path().join(".f.tmp")).unwrap();
        assert!(replace(&dir.path().join("f"), b"new", false).is_err());
        assert_eq!(std::fs::read(&victim).unwrap(), b"precious");
    }
}
