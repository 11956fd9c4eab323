//! The first checks: ssh on this machine, the private key, and a server that answers.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use protocol::StageError;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::lookup_host;
use tokio::time::timeout;

use super::{CheckTitle, Diagnostics};
use crate::arrival;
use crate::codes;
use crate::ssh::{self, Resolved, Server, key_permissions};
use crate::supervisor::check_key;

/// Time limit of a name lookup: the system itself waits much longer.
const LOOK_UP: Duration = Duration::from_secs(5);
/// sshd sends its banner at once; another program that accepts connections may send none.
const BANNER: Duration = Duration::from_secs(3);
/// Longest banner line of RFC 4253.
const BANNER_LENGTH: u64 = 255;

const CLIENT: CheckTitle = ("ssh", "an ssh client is installed");
const CONFIG: CheckTitle = ("ssh_config", "ssh resolves the server");
const KEY: CheckTitle = ("key", "the private key can be read");
const NAME: CheckTitle = ("host", "the server's name resolves to an address");
const REACH: CheckTitle = ("server", "the ssh server answers");

impl Diagnostics<'_> {
    /// Reports each of the first checks. If no login is possible, returns why.
    pub(super) async fn run_first_steps(&mut self) -> Result<(), &'static str> {
        self.resolved = self.client().await;
        let server = match &self.resolved {
            Some(resolved) => resolved.server(&self.config),
            None => Server::from_config(&self.config),
        };
        let has_key = self.key(&server);
        match (&self.resolved, self.answers(&server).await, has_key) {
            (None, ..) => Err("needs ssh"),
            (_, false, _) => Err("needs the server"),
            (_, _, false) => Err("needs the key"),
            _ => Ok(()),
        }
    }

    async fn client(&self) -> Option<Resolved> {
        let version = ssh::version().await;
        let found = self.tell(CLIENT, version, Clone::clone);
        if found.is_none() {
            self.cx.skip(&[CONFIG], "needs ssh");
            return None;
        }
        let resolved = Resolved::from_ssh(&self.config).await;
        self.tell(CONFIG, resolved, |r| r.server(&self.config).to_string())
    }

    fn key(&self, server: &Server) -> bool {
        let Some(path) = &self.config.ssh_key_path else {
            self.cx.skip(
                &[KEY],
                "ssh_key_path is not set; ssh uses the keys of ssh_config and the agent",
            );
            return true;
        };
        let read = check_key(&self.config).and_then(|()| check_key_mode(path, server));
        let is_read = self.tell(KEY, read, |()| path.display().to_string());
        is_read.is_some()
    }

    /// Whether the server answers. With a proxy on the way, only a login shows.
    async fn answers(&self, server: &Server) -> bool {
        let instead = match &self.resolved {
            Some(resolved) if resolved.direct_address().is_none() => {
                Some("ssh_config has a proxy on the way")
            }
            None if !server.host.contains('.') => Some("needs ssh, which may resolve the name"),
            _ => None,
        };
        if let Some(instead) = instead {
            self.cx.skip(&[NAME, REACH], instead);
            return true;
        }
        let addresses = look_up(server).await;
        if self.tell(NAME, addresses, |a| a.join(", ")).is_none() {
            self.cx.skip(&[REACH], "needs an address");
            return false;
        }
        let greeted = read_banner(server).await;
        self.tell(REACH, greeted, Clone::clone).is_some()
    }
}

/// ssh ignores a key of our own that others may read. It does not check keys of other users.
fn check_key_mode(path: &Path, server: &Server) -> Result<(), StageError> {
    let us = rustix::process::geteuid().as_raw();
    match std::fs::metadata(path) {
        Ok(key) if key.uid() == us && key.mode() & 0o077 != 0 => Err(key_permissions(server)),
        _ => Ok(()),
    }
}

async fn look_up(server: &Server) -> Result<Vec<String>, StageError> {
    // In ssh's own words, for which the errors are known.
    let failed = |why: std::io::Error| {
        let line = format!("Could not resolve hostname {}: {why}", server.host);
        ssh::connecting_error(&[line], server)
    };
    let addresses = lookup_host((server.host.as_str(), server.port));
    let addresses = arrival::with_timeout(LOOK_UP, addresses)
        .await
        .map_err(failed)?;
    Ok(addresses.map(|a| a.ip().to_string()).collect())
}

/// Reads the server's banner and measures the connect.
async fn read_banner(server: &Server) -> Result<String, StageError> {
    let asked = Instant::now();
    let connected = arrival::probe_tcp(&server.host, server.port, arrival::CONNECT).await;
    let stream = connected.map_err(|e| ssh::connecting_error(&[e.to_string()], server))?;
    let took = asked.elapsed();
    let mut banner = Vec::new();
    let mut reader = BufReader::new(stream).take(BANNER_LENGTH);
    drop(timeout(BANNER, reader.read_until(b'\n', &mut banner)).await);
    let banner = String::from_utf8_lossy(&banner).trim_end().to_owned();
    if banner.starts_with("SSH-") {
        return Ok(format!("{banner}, {took:.1?} away"));
    }
    let (host, port) = (&server.host, server.port);
    let message = format!("{host}:{port} accepts connections, but is not an ssh server");
    let error = StageError::new(codes::SERVER_HUNG_UP, message)
        .hint("check ssh_port, and that a captive portal or proxy does not answer in its place");
    Err(match banner.is_empty() {
        true => error.cause("it sends nothing"),
        false => error.cause(format!("it sends {banner:?}")),
    })
}
