//! The first steps of the way: this machine's ssh, the key, and a server that answers.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use protocol::StageError;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::lookup_host;
use tokio::time::timeout;

use super::{Look, What};
use crate::arrival;
use crate::life::check_key;
use crate::ssh::{self, Resolved, Target, key_permissions};

/// A name server that does not answer is tried for much longer by the system.
const LOOK_UP: Duration = Duration::from_secs(5);
/// sshd greets at once; something else that accepts connections may not.
const BANNER: Duration = Duration::from_secs(3);
/// A line that begins with the word, as RFC 4253 has it, is at most this long.
const BANNER_LENGTH: u64 = 255;

const CLIENT: What = ("ssh", "an ssh client is installed");
const CONFIG: What = ("ssh_config", "ssh knows the server");
const KEY: What = ("key", "the private key can be read");
const NAME: What = ("host", "the server's name has an address");
const REACH: What = ("server", "the ssh server answers");

/// How far the first steps lead.
pub(super) enum Reached {
    /// A login can be tried.
    Server(Resolved),
    /// It cannot, and why; ssh may know the server all the same.
    Not(&'static str, Option<Resolved>),
}

impl Look<'_> {
    /// Reports each of the first steps.
    pub(super) async fn reach(&self) -> Reached {
        let resolved = self.client().await;
        let target = match &resolved {
            Some(resolved) => resolved.target(&self.config),
            None => self.as_written(),
        };
        let has_key = self.key(&target);
        let has_server = self.greets(resolved.as_ref(), &target).await;
        match (resolved, has_server, has_key) {
            (None, ..) => Reached::Not("needs ssh", None),
            (resolved, false, _) => Reached::Not("needs the server", resolved),
            (resolved, _, false) => Reached::Not("needs the key", resolved),
            (Some(resolved), ..) => Reached::Server(resolved),
        }
    }

    /// The server as far as it is known without ssh, which may know it by another name.
    fn as_written(&self) -> Target {
        let config = self.config.clone();
        Target {
            user: config.ssh_user.unwrap_or_default(),
            host: config.reverse_proxy_host,
            port: config.ssh_port.unwrap_or(22),
            key: config.ssh_key_path,
            known_hosts: config.known_hosts_path,
        }
    }

    async fn client(&self) -> Option<Resolved> {
        let version = ssh::version().await;
        let found = self.tell(CLIENT, version, Clone::clone);
        if found.is_none() {
            self.cx.skip(&[CONFIG], "needs ssh");
            return None;
        }
        let resolved = Resolved::ask(&self.config).await;
        self.tell(CONFIG, resolved, |r| r.target(&self.config).to_string())
    }

    fn key(&self, target: &Target) -> bool {
        let Some(path) = &self.config.ssh_key_path else {
            self.cx.skip(
                &[KEY],
                "ssh_key_path is not set: ssh_config and the agent decide",
            );
            return true;
        };
        let read = check_key(&self.config).and_then(|()| only_ours(path, target));
        self.tell(KEY, read, |()| path.display().to_string())
            .is_some()
    }

    /// Whether there is a server to log in to; where a proxy is on the way, only a login tells.
    async fn greets(&self, resolved: Option<&Resolved>, target: &Target) -> bool {
        let instead = match resolved {
            Some(resolved) if resolved.directly_reached().is_none() => {
                Some("ssh_config has a proxy on the way")
            }
            None if !target.host.contains('.') => {
                Some("needs ssh, which may know it by another name")
            }
            _ => None,
        };
        if let Some(instead) = instead {
            self.cx.skip(&[NAME, REACH], instead);
            return true;
        }
        if self
            .tell(NAME, look_up(target).await, |a| a.join(", "))
            .is_none()
        {
            self.cx.skip(&[REACH], "needs an address");
            return false;
        }
        self.tell(REACH, greeted(target).await, Clone::clone)
            .is_some()
    }
}

/// ssh passes over a key of ours that others may read, and over nobody else's.
fn only_ours(path: &Path, target: &Target) -> Result<(), StageError> {
    let us = rustix::process::geteuid().as_raw();
    match std::fs::metadata(path) {
        Ok(key) if key.uid() == us && key.mode() & 0o077 != 0 => Err(key_permissions(target)),
        _ => Ok(()),
    }
}

async fn look_up(target: &Target) -> Result<Vec<String>, StageError> {
    // In the words in which ssh would put it: its errors are known.
    let failed = |why: String| {
        let line = format!("Could not resolve hostname {}: {why}", target.host);
        ssh::connecting(&[line], target)
    };
    match timeout(LOOK_UP, lookup_host((target.host.as_str(), target.port))).await {
        Ok(Ok(addresses)) => Ok(addresses.map(|a| a.ip().to_string()).collect()),
        Ok(Err(error)) => Err(failed(error.to_string())),
        Err(_) => Err(failed(format!("no answer within {LOOK_UP:?}"))),
    }
}

/// Who answers there, and how fast.
async fn greeted(target: &Target) -> Result<String, StageError> {
    let asked = Instant::now();
    let connected = arrival::connect(&target.host, target.port, arrival::CONNECT).await;
    let stream = connected.map_err(|e| ssh::connecting(&[e.to_string()], target))?;
    let took = asked.elapsed();
    let mut banner = Vec::new();
    let mut reader = BufReader::new(stream).take(BANNER_LENGTH);
    drop(timeout(BANNER, reader.read_until(b'\n', &mut banner)).await);
    let banner = String::from_utf8_lossy(&banner).trim_end().to_owned();
    if banner.starts_with("SSH-") {
        return Ok(format!("{banner}, {took:.1?} away"));
    }
    let (host, port) = (&target.host, target.port);
    let message = format!("{host}:{port} takes connections, but no ssh server greets there");
    let error = StageError::new("tunnel.server_hung_up", message)
        .hint("check ssh_port, and that no captive portal or proxy answers in its place");
    Err(match banner.is_empty() {
        true => error.cause("it says nothing"),
        false => error.cause(format!("it says {banner:?}")),
    })
}
