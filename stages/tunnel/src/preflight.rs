//! `check --preflight`: the way of a tunnel, step by step, with nothing left standing.
//!
//! A port of the server is listened on for a moment. It leads to a local port where nobody is, never to the master.

use std::net::Ipv4Addr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use protocol::{Check, Context, StageError};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::{TcpListener, lookup_host};
use tokio::time::timeout;

use crate::Tunnel;
use crate::arrival;
use crate::claim::{Claimed, Proof, Way};
use crate::config::Config;
use crate::life::{bind_address, check_key};
use crate::network::Network;
use crate::outputs::Verified;
use crate::ssh::{self, Resolved, Session, Socket, Target, key_permissions};

/// A name server that does not answer is tried for much longer by the system.
const LOOK_UP: Duration = Duration::from_secs(5);
/// sshd greets at once; something else that accepts connections may not.
const BANNER: Duration = Duration::from_secs(3);
/// A line that begins with the word, as RFC 4253 has it, is at most this long.
const BANNER_LENGTH: u64 = 255;

/// What is looked at: a stable name, and what should be so.
type What = (&'static str, &'static str);

const CLIENT: What = ("ssh", "an ssh client is installed");
const CONFIG: What = ("ssh_config", "ssh knows the server");
const KEY: What = ("key", "the private key can be read");
const NAME: What = ("host", "the server's name has an address");
const REACH: What = ("server", "the ssh server answers");
const LOGIN: What = ("login", "the server lets us in");
const FORWARDING: What = ("forwarding", "the server forwards ports for us");
const PORT: What = ("port", "a port of the server leads here from outside");

struct Preflight<'a> {
    cx: &'a Context<Tunnel>,
    config: Config,
}

pub(crate) async fn preflight(cx: &Context<Tunnel>, config: Config) {
    Preflight { cx, config }.all().await;
}

/// The control socket of a preflight; another one is that of the instance, which may run.
struct Spare(Socket);

impl Drop for Spare {
    fn drop(&mut self) {
        self.0.clear();
    }
}

impl Preflight<'_> {
    async fn all(&self) {
        let resolved = self.client().await;
        let target = match &resolved {
            Some(resolved) => resolved.target(&self.config),
            None => self.as_written(),
        };
        let has_key = self.key(&target);
        let has_server = self.server(resolved.as_ref(), &target).await;
        let missing = match (&resolved, has_server, has_key) {
            (None, ..) => "needs ssh",
            (_, false, _) => "needs the server",
            (.., false) => "needs the key",
            (Some(resolved), ..) => return self.session(resolved).await,
        };
        self.skip(&[LOGIN, FORWARDING, PORT], missing);
    }

    /// The server as far as it is known without ssh, which may know it by another name.
    fn as_written(&self) -> Target {
        let config = self.config.clone();
        Target {
            user: config.ssh_user.unwrap_or_default(),
            host: config.reverse_proxy_host,
            port: config.ssh_port.unwrap_or(22),
            key: config.ssh_key_path,
        }
    }

    fn skip(&self, rest: &[What], why: &str) {
        for (id, title) in rest {
            self.cx.report(Check::skipped(id, title, why));
        }
    }

    /// Reports an outcome, and returns what it found.
    fn tell<T>(
        &self,
        (id, title): What,
        outcome: Result<T, StageError>,
        message: impl FnOnce(&T) -> String,
    ) -> Option<T> {
        match outcome {
            Ok(found) => {
                self.cx.report(Check::ok(id, title, message(&found)));
                Some(found)
            }
            Err(error) => {
                self.cx.report(Check::failed(id, title, &error));
                None
            }
        }
    }

    async fn client(&self) -> Option<Resolved> {
        let version = ssh::version().await;
        let found = self.tell(CLIENT, version, Clone::clone);
        if found.is_none() {
            self.skip(&[CONFIG], "needs ssh");
            return None;
        }
        let resolved = Resolved::ask(&self.config).await;
        self.tell(CONFIG, resolved, |r| r.target(&self.config).to_string())
    }

    fn key(&self, target: &Target) -> bool {
        let Some(path) = &self.config.ssh_key_path else {
            self.skip(
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
    async fn server(&self, resolved: Option<&Resolved>, target: &Target) -> bool {
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
            self.skip(&[NAME, REACH], instead);
            return true;
        }
        if self
            .tell(NAME, look_up(target).await, |a| a.join(", "))
            .is_none()
        {
            self.skip(&[REACH], "needs an address");
            return false;
        }
        self.tell(REACH, greeted(target).await, Clone::clone)
            .is_some()
    }

    async fn session(&self, resolved: &Resolved) {
        let mut config = self.config.clone();
        let session = self.log_in(&mut config, resolved).await;
        let message =
            |(session, _): &(Session, Spare)| format!("logged in as {}", session.target());
        match self.tell(LOGIN, session, message) {
            Some((session, _socket)) => self.port(&config, resolved, session).await,
            None => self.skip(&[FORWARDING, PORT], "needs a login"),
        }
    }

    /// The login of a tunnel, but that it leads nowhere.
    async fn log_in(
        &self,
        config: &mut Config,
        resolved: &Resolved,
    ) -> Result<(Session, Spare), StageError> {
        config.local_port = nobodys_port().await?;
        let mut cx = self.cx.clone();
        cx.instance = format!("{}.preflight-{}", cx.instance, std::process::id());
        let socket = Socket::reserve(&cx, &resolved.target(config).to_string())?;
        let socket = Spare(socket);
        let network = Network::watch(resolved.directly_reached());
        let session = Session::connect(config, resolved, socket.0.path(), &[], &network).await?;
        Ok((session, socket))
    }

    async fn port(&self, config: &Config, resolved: &Resolved, mut session: Session) {
        let way = Way::new(config, resolved);
        session.bind_address = bind_address(config, &way.public_host).await;
        let claimed = match way.shuffled(None) {
            Ok(ports) => way.claim(&session, ports).await.map_err(|u| u.error),
            Err(error) => Err(error),
        };
        let held: Vec<Claimed> = claimed.as_ref().ok().copied().into_iter().collect();
        let claimed = claimed.and_then(|claimed| way.accept(claimed));
        let (id, title) = FORWARDING;
        match &claimed {
            Err(error) if FORBIDDEN.contains(&error.code.as_str()) => {
                self.cx.report(Check::failed(id, title, error));
                self.skip(&[PORT], "needs forwarding");
            }
            _ => {
                self.cx.report(Check::ok(id, title, ""));
                self.tell(PORT, claimed, |claimed| proof(&way, *claimed));
            }
        }
        session.close(&held).await;
    }
}

/// The server refuses to forward, whatever the port.
const FORBIDDEN: [&str; 2] = ["tunnel.forwarding_forbidden", "tunnel.ports_not_permitted"];

fn proof(way: &Way, claimed: Claimed) -> String {
    let at = format!("{}:{}", way.public_host, claimed.port);
    match claimed.proof {
        Proof::Seen(Verified::Tcp) => format!("{at} takes connections, tried and given back"),
        Proof::Seen(_) => format!("{at} does, tried and given back"),
        Proof::OutOfReach => {
            format!("{at} is granted; this machine does not get there, only a pod can tell")
        }
        Proof::Changed | Proof::NotAskedFor => {
            format!("{at} is granted; whether it leads here was not proven")
        }
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

/// A port of this machine where nobody listens.
async fn nobodys_port() -> Result<u16, StageError> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
    let address = listener.and_then(|l| l.local_addr());
    let failed = |e| StageError::io("cannot have a port of this machine", &e);
    address.map(|a| a.port()).map_err(failed)
}
