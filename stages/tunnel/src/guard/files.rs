//! The sockets of the guards: one for each guarded port, and one at which `check` and `wait` ask.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use protocol::ledger::Ticket;
use protocol::{Context, Leftover, StageError};
use serde_json::{Value, json};
use tokio::net::{UnixListener, UnixSocket};

use crate::Tunnel;
use crate::ssh::socket_path;

/// The ledger's kind of entry for these files.
pub(crate) const LEDGER_ENTRY: &str = "guard";

/// As many visitors may connect at once as ssh has channels for.
const BACKLOG: u32 = 1024;

/// The files, recorded in the ledger. Dropping it removes them.
#[derive(Debug)]
pub(super) struct Files {
    paths: Vec<PathBuf>,
    ticket: Ticket,
}

/// The path at which an instance answers `check` and `wait`. If it is too long for a socket, it is a link to the socket.
pub(super) fn ask_path(run_dir: &protocol::rundir::RunDir, instance: &str) -> PathBuf {
    run_dir.file(&format!("{instance}.guard"))
}

/// What the guards listen on.
pub(super) struct Bound {
    pub(super) files: Files,
    /// The socket of `check` and `wait`.
    pub(super) ask: UnixListener,
    /// The path and the socket of each guarded port.
    pub(super) ports: Vec<(PathBuf, UnixListener)>,
}

impl Files {
    /// Binds the socket of `check` and `wait`, and one for each of these ports.
    pub(super) fn bind(cx: &Context<Tunnel>, ports: &[u16]) -> Result<Bound, StageError> {
        let ask = ask_path(&cx.run_dir, &cx.instance);
        let wanted = ports.iter().map(|port| {
            let name = format!("{}.guard-{port}", cx.instance);
            socket_path(&cx.run_dir.file(&name), &cx.env)
        });
        let wanted: Vec<PathBuf> = wanted.collect();
        let at = socket_path(&ask, &cx.env);
        let mut paths = vec![ask.clone(), at.clone()];
        paths.extend(wanted.iter().cloned());
        let ticket = cx.ledger.intend(LEDGER_ENTRY, json!({ "files": paths }))?;
        let files = Files { paths, ticket };
        files.remove();
        let listener = bind(&at)?;
        if at != ask {
            let linked = std::os::unix::fs::symlink(&at, &ask);
            linked.map_err(|e| failed(&ask, &e))?;
        }
        let ports = wanted.into_iter().map(|path| {
            let listener = bind(&path)?;
            Ok((path, listener))
        });
        let ports = ports.collect::<Result<_, StageError>>()?;
        Ok(Bound {
            files,
            ask: listener,
            ports,
        })
    }

    fn remove(&self) {
        for path in &self.paths {
            drop(std::fs::remove_file(path));
        }
    }

    pub(super) fn release(self) -> Result<(), StageError> {
        self.remove();
        self.ticket.clone().settle()
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        self.remove();
    }
}

fn failed(path: &Path, error: &io::Error) -> StageError {
    StageError::io(format!("cannot make {}", path.display()), error)
}

/// A socket that only this user can connect to: its mode is set before it listens.
fn bind(path: &Path) -> Result<UnixListener, StageError> {
    let bound = (|| {
        let socket = UnixSocket::new_stream()?;
        socket.bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        socket.listen(BACKLOG)
    })();
    bound.map_err(|e| failed(path, &e))
}

/// The files that a dead run left.
pub(crate) fn leftover(data: &Value) -> Option<Leftover<'_>> {
    let paths = data["files"].as_array()?.iter();
    let paths = paths.filter_map(|path| path.as_str().map(Path::new));
    let paths: Vec<&Path> = paths
        .filter(|path| path.symlink_metadata().is_ok())
        .collect();
    let shown = paths.first()?.display();
    let title = format!("the sockets of the tunnel's guard, such as {shown}");
    let remove = async move {
        for path in paths {
            match std::fs::remove_file(path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => {
                    let message = format!("cannot remove {}", path.display());
                    return Err(StageError::io(message, &e));
                }
                _ => {}
            }
        }
        Ok(true)
    };
    Some(Leftover::new(title, remove))
}
