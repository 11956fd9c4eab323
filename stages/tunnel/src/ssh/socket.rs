//! The control socket: its path, and cleanup after a dead run.

use std::path::{Path, PathBuf};
use std::time::Duration;

use protocol::files::trust;
use protocol::{Context, Env, Leftover, Stage, StageError, child, ledger};
use serde_json::json;
use tokio::time::timeout;

use super::Server;

/// The ledger's kind of entry for an ssh process: its control socket, and the remote listeners that die with it.
pub(crate) const LEDGER_ENTRY: &str = "ssh";

/// sockaddr_un holds 104 bytes on macOS and 108 on Linux, and ssh appends 17 of its own while it makes the socket.
const LONGEST: usize = 80;

const EXIT: Duration = Duration::from_secs(5);

/// A path for a control socket, recorded in the ledger. Dropping it removes a socket that ssh left.
#[derive(Debug)]
pub(crate) struct Socket {
    pub(crate) path: PathBuf,
    ticket: ledger::Ticket,
}

impl Socket {
    /// Reserves a socket of this name: in the run directory, if the path is short enough.
    pub(crate) fn reserve<S: Stage>(
        cx: &Context<S>,
        name: &str,
        server: &Server,
    ) -> Result<Socket, StageError> {
        let path = socket_path(&cx.run_dir.file(&format!("{name}.ssh")), &cx.env);
        let data = json!({"socket": path, "server": server.to_string()});
        let ticket = cx.ledger.intend(LEDGER_ENTRY, data)?;
        let socket = Socket { path, ticket };
        // If a socket is in the way, ssh continues without one.
        socket.clear();
        Ok(socket)
    }

    pub(crate) fn clear(&self) {
        drop(std::fs::remove_file(&self.path));
    }

    pub(crate) fn release(self) -> Result<(), StageError> {
        self.clear();
        self.ticket.clone().settle()
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // Else another run may have its socket there.
        if self.ticket.is_current() {
            self.clear();
        }
    }
}

/// The run directory, which is ours alone; if its path is too long, an unguessable name in /tmp.
pub(crate) fn socket_path(in_run_dir: &Path, env: &Env) -> PathBuf {
    let name = format!("dcs-{}.ssh", protocol::run_id());
    let mut places = vec![in_run_dir.to_owned()];
    places.extend(env.path("XDG_RUNTIME_DIR").map(|dir| dir.join(&name)));
    places.push(env.temp_dir().join(&name));
    // ssh expands % and ${} in this path.
    let fits = |path: &&PathBuf| {
        path.as_os_str().len() <= LONGEST
            && !path.to_string_lossy().contains(['%', '$'])
            && trust::can_hold(path)
    };
    places
        .iter()
        .find(fits)
        .cloned()
        .unwrap_or_else(|| Path::new("/tmp").join(&name))
}

/// An ssh that outlived its stage. The remote listeners end with it.
pub(crate) fn leftover(data: &serde_json::Value) -> Option<Leftover<'_>> {
    let path = data["socket"].as_str().map(Path::new)?;
    let server = data["server"].as_str().unwrap_or("the server");
    let shown = path.display();
    let title = format!("the ssh connection to {server} and its socket {shown}");
    let end = async move {
        match end(path).await {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(StageError::io(format!("cannot remove {shown}"), &e)),
        }
    };
    path.exists().then(|| Leftover::new(title, end))
}

/// Ends the ssh that listens at this socket, and removes the file.
pub(crate) async fn end(path: &Path) -> std::io::Result<()> {
    let args = ["-F", "none", "-O", "exit", "-S"].map(std::ffi::OsStr::new);
    let args = args
        .into_iter()
        .chain([path.as_os_str(), "--".as_ref(), "any".as_ref()]);
    // If ssh is dead or not installed, only the file is left.
    if let Ok(mut ssh) = child::spawn("ssh", args) {
        drop(timeout(EXIT, ssh.child.wait()).await);
    }
    std::fs::remove_file(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_is_too_long_or_that_ssh_would_expand_is_not_used() {
        let env = Env::from_pairs([("TMPDIR", "/var/tmp")]);
        assert_eq!(
            socket_path(Path::new("/run/x/tunnel.ssh"), &env),
            Path::new("/run/x/tunnel.ssh")
        );
        for bad in ["x".repeat(LONGEST), "100%".into(), "${HOME}".into()] {
            let path = socket_path(&Path::new("/").join(bad), &env);
            assert!(path.starts_with("/var/tmp"), "{}", path.display());
        }
        let long = Env::from_pairs([("TMPDIR", format!("/{}", "y".repeat(LONGEST)))]);
        assert!(socket_path(Path::new(&"/x".repeat(LONGEST)), &long).starts_with("/tmp"));
    }
}
