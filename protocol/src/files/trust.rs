//! Which paths other users cannot change. As with sshd's StrictModes, every directory on the way counts, and the one of
//! every link.

use std::ffi::OsString;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::sync::LazyLock;

/// As many links as the kernel follows.
const MAX_LINKS: usize = 40;

/// Why a path cannot be trusted.
#[derive(Debug, thiserror::Error)]
pub enum Untrusted {
    /// Other users can change what is there.
    #[error("{} {why}", place.display())]
    Replaceable {
        /// The file or directory that they can change.
        place: PathBuf,
        /// In words.
        why: String,
    },
    /// It cannot be looked up.
    #[error("cannot look up {}: {source}", place.display())]
    Io {
        /// The part that cannot be looked up.
        place: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
}

/// A path without links, and the names below it that do not exist.
pub(super) struct Resolved {
    pub(super) path: PathBuf,
    pub(super) missing: Vec<OsString>,
}

/// The canonical path of a file or directory that exists, and that only this user and root can change or replace.
pub fn trusted(path: &Path) -> Result<PathBuf, Untrusted> {
    let resolved = resolve(path)?;
    let place = resolved.path;
    if let Some(name) = resolved.missing.first() {
        let source = std::io::ErrorKind::NotFound.into();
        let place = place.join(name);
        return Err(Untrusted::Io { place, source });
    }
    let meta = look_up(&place)?;
    match TRUST.why_writable(&meta) {
        None => Ok(place),
        Some(why) => Err(Untrusted::Replaceable { place, why }),
    }
}

/// Whether a file can be made here that other users cannot replace.
pub fn can_hold(path: &Path) -> bool {
    resolve(path).is_ok()
}

/// Follows a path as the kernel does. The error names the first part that other users can replace.
pub(super) fn resolve(path: &Path) -> Result<Resolved, Untrusted> {
    let io = |place: &Path, source| Untrusted::Io {
        place: place.to_owned(),
        source,
    };
    let whole = std::path::absolute(path).map_err(|e| io(path, e))?;
    let (mut done, mut links) = (PathBuf::from("/"), 0);
    let mut rest = parts(&whole);
    while let Some(name) = rest.pop() {
        if name == ".." {
            done.pop();
            continue;
        }
        TRUST.check_directory(&done)?;
        let next = done.join(&name);
        let meta = match next.symlink_metadata() {
            Ok(meta) => meta,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                rest.push(name);
                rest.reverse();
                return Ok(Resolved {
                    path: done,
                    missing: rest,
                });
            }
            Err(e) => return Err(io(&next, e)),
        };
        TRUST.check_owner(&next, &meta)?;
        if !meta.is_symlink() {
            done = next;
            continue;
        }
        links += 1;
        if links > MAX_LINKS {
            return Err(io(&next, rustix::io::Errno::LOOP.into()));
        }
        let target = next.read_link().map_err(|e| io(&next, e))?;
        if target.is_absolute() {
            done = PathBuf::from("/");
        }
        rest.extend(parts(&target));
    }
    Ok(Resolved {
        path: done,
        missing: rest,
    })
}

/// The names of a path, the last one first.
fn parts(path: &Path) -> Vec<OsString> {
    let names = path.components().rev().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    });
    names.collect()
}

fn look_up(place: &Path) -> Result<Metadata, Untrusted> {
    place.symlink_metadata().map_err(|source| Untrusted::Io {
        place: place.to_owned(),
        source,
    })
}

pub(super) static TRUST: LazyLock<Trust> = LazyLock::new(Trust::of_process);

/// Whom this process trusts.
pub(super) struct Trust {
    me: u32,
    /// It may write: with umask 002, new directories have this mode, and the group has no other member.
    group: u32,
    /// Root; in a user namespace, the id that stands for it.
    system: u32,
    home: Option<PathBuf>,
}

impl Trust {
    fn of_process() -> Trust {
        let root = Path::new("/").metadata();
        let home = std::env::var_os("HOME").map(PathBuf::from);
        Trust {
            me: rustix::process::geteuid().as_raw(),
            group: rustix::process::getegid().as_raw(),
            system: root.map_or(0, |meta| meta.uid()),
            home: home.and_then(|home| home.canonicalize().ok()),
        }
    }

    pub(super) fn owns(&self, meta: &Metadata) -> bool {
        [self.me, self.system, 0].contains(&meta.uid())
    }

    fn check_owner(&self, place: &Path, meta: &Metadata) -> Result<(), Untrusted> {
        if self.owns(meta) || self.is_above_home(place) {
            return Ok(());
        }
        Err(Untrusted::Replaceable {
            place: place.to_owned(),
            why: format!("belongs to user {}", meta.uid()),
        })
    }

    /// Names in a sticky directory belong to those who made them, and their owner is checked.
    fn check_directory(&self, place: &Path) -> Result<(), Untrusted> {
        let meta = look_up(place)?;
        let sticky = meta.is_dir() && meta.mode() & 0o1000 != 0;
        if sticky || self.is_above_home(place) {
            return Ok(());
        }
        match self.why_writable(&meta) {
            None => Ok(()),
            Some(why) => Err(Untrusted::Replaceable {
                place: place.to_owned(),
                why,
            }),
        }
    }

    fn why_writable(&self, meta: &Metadata) -> Option<String> {
        let mode = meta.mode() & 0o7777;
        let others = mode & 0o002 != 0 || (mode & 0o020 != 0 && meta.gid() != self.group);
        others.then(|| format!("is writable by other users (mode {mode:o})"))
    }

    /// Who can replace the user's home can do anything as this user.
    fn is_above_home(&self, place: &Path) -> bool {
        let home = self.home.as_deref();
        home.is_some_and(|home| home != place && home.starts_with(place))
    }
}
