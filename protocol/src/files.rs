//! Small files that are ours alone: mode 0600, replaced whole, never through a link.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

use crate::error::{Exit, StageError};

/// No file that a stage reads whole is larger.
const MAX_FILE: u64 = 4 << 20;

const NO_FOLLOW: i32 = rustix::fs::OFlags::NOFOLLOW.bits() as i32;

/// Opens a file of ours for reading and writing, made with mode 0600 when it is not there.
pub(crate) fn open(path: &Path) -> std::io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(NO_FOLLOW)
        .open(path)
}

/// Opens a file of ours for appending, made with mode 0600 when it is not there.
pub(crate) fn open_append(path: &Path) -> std::io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .custom_flags(NO_FOLLOW)
        .open(path)
}

/// Reads a file of ours whole; `None` when it is not there.
pub fn read(path: &Path) -> std::io::Result<Option<Vec<u8>>> {
    let file = match OpenOptions::new()
        .read(true)
        .custom_flags(NO_FOLLOW)
        .open(path)
    {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    if !file.metadata()?.is_file() {
        return Err(std::io::Error::other("not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(std::io::Error::other("larger than 4 MiB"));
    }
    Ok(Some(bytes))
}

/// How long another writer of the same file is waited for.
const WRITER_PATIENCE: Duration = Duration::from_secs(2);

/// Replaces a file: written beside it, synced, renamed. The neighbour's name is fixed, so that a killed run leaves at
/// most one, which the next run replaces; its lock keeps two writers apart. `sync` makes it survive a power-off.
pub fn replace(path: &Path, bytes: &[u8], sync: bool) -> std::io::Result<()> {
    let neighbour = neighbour(path)?;
    let mut file = open_neighbour(&neighbour)?;
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    let written = file
        .set_len(0)
        .and_then(|()| file.write_all(bytes))
        .and_then(|()| if sync { file.sync_all() } else { Ok(()) });
    if let Err(e) = written.and_then(|()| std::fs::rename(&neighbour, path)) {
        drop(std::fs::remove_file(&neighbour));
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

fn neighbour(path: &Path) -> std::io::Result<PathBuf> {
    let name = path
        .file_name()
        .ok_or_else(|| std::io::Error::other("not a file name"))?;
    Ok(path.with_file_name(format!(".{}.tmp", name.to_string_lossy())))
}

/// Opens the neighbour as its only writer.
fn open_neighbour(path: &Path) -> std::io::Result<File> {
    let deadline = Instant::now() + WRITER_PATIENCE;
    loop {
        let file = open(path)?;
        let locked = flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok();
        // Whoever had it may have renamed it meanwhile: then what we hold is the finished file.
        let current = std::fs::symlink_metadata(path)
            .is_ok_and(|there| file.metadata().is_ok_and(|ours| ours.ino() == there.ino()));
        if locked && current {
            return Ok(file);
        }
        if Instant::now() >= deadline {
            return Err(std::io::Error::other("another process is writing it"));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Removes a file and what a killed [`replace`] may have left beside it. Not being there is fine.
pub fn remove(path: &Path) -> std::io::Result<()> {
    remove_one(&neighbour(path)?)?;
    remove_one(path)
}

fn remove_one(path: &Path) -> std::io::Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// Makes a directory that only we can use, or checks that it is one.
pub(crate) fn private_dir(path: &Path, what: &str) -> Result<(), StageError> {
    let shown = path.display();
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|e| StageError::io(format!("cannot make the {what} {shown}"), &e))?;
    let refuse = |why: String| {
        Err(
            StageError::new("protocol.unsafe_dir", format!("the {what} {shown} {why}"))
                .hint("name a directory of your own, or make this one yours alone: chmod 700")
                .exit(Exit::Usage),
        )
    };
    let meta = std::fs::symlink_metadata(path)
        .map_err(|e| StageError::io(format!("cannot look at the {what} {shown}"), &e))?;
    let me = rustix::process::geteuid().as_raw();
    if !meta.is_dir() {
        return refuse("is a link; links are not followed".into());
    }
    if meta.uid() != me {
        return refuse(format!("belongs to user {}, not to us ({me})", meta.uid()));
    }
    if meta.mode() & 0o022 != 0 {
        return refuse(format!(
            "may be written to by others (mode {:o})",
            meta.mode() & 0o777
        ));
    }
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    if let Some(above) = absolute.parent().and_then(|p| std::fs::metadata(p).ok()) {
        let shared = above.mode() & 0o022 != 0 && above.mode() & 0o1000 == 0;
        if shared || (above.uid() != me && above.uid() != 0) {
            return refuse("lies in a directory in which others may swap it".into());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_is_replaced_whole_with_mode_0600_even_where_another_mode_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, "old").unwrap();
        replace(&path, b"new", true).unwrap();
        assert_eq!(read(&path).unwrap().unwrap(), b"new");
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

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
    fn a_link_is_neither_read_nor_taken_for_a_directory() {
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

    #[test]
    fn a_directory_that_others_may_write_to_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let open = dir.path().join("open");
        std::fs::create_dir(&open).unwrap();
        std::fs::set_permissions(&open, PermissionsExt::from_mode(0o777)).unwrap();
        assert_eq!(
            private_dir(&open, "run directory").unwrap_err().code,
            "protocol.unsafe_dir"
        );
        let inside = open.join("inside");
        assert_eq!(
            private_dir(&inside, "run directory").unwrap_err().code,
            "protocol.unsafe_dir"
        );
    }
}
