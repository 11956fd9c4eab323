//! What `check` looks at beside a running instance: the way of a tunnel step by step, and the server for whoever runs it.
//!
//! A port of the server is listened on for a moment. It leads to a local port where nobody is, never to the master.

mod bind_policy;
mod ports;
mod preflight;
mod reach;
mod server;
mod sshd_config;

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use protocol::{Context, StageError, What};
use tokio::net::TcpListener;

use crate::Tunnel;
use crate::config::Config;
use crate::network::Network;
use crate::ssh::{Resolved, Session, Socket};
use reach::Reached;

pub(crate) use preflight::preflight;
pub(crate) use server::server;

const LOGIN: What = ("login", "the server lets us in");
const FORWARDING: What = ("forwarding", "the server forwards ports for us");

/// The server refuses to forward, whatever the port.
const FORBIDDEN: [&str; 2] = ["tunnel.forwarding_forbidden", "tunnel.ports_not_permitted"];

struct Look<'a> {
    cx: &'a Context<Tunnel>,
    /// The user's, but that it leads nowhere.
    config: Config,
}

/// A login.
struct Inside {
    resolved: Resolved,
    session: Session,
    took: Duration,
    _socket: Spare,
}

/// The control socket of a look; another one is that of the instance, which may run.
struct Spare(Socket);

impl Drop for Spare {
    fn drop(&mut self) {
        self.0.clear();
    }
}

impl Look<'_> {
    /// Walks up to a login, and reports each step. Without one the rest is skipped; the server may be known all the same.
    async fn enter(&mut self, rest: &[What]) -> Result<Inside, Option<Resolved>> {
        let resolved = match self.reach().await {
            Reached::Server(resolved) => resolved,
            Reached::Not(why, resolved) => {
                self.cx.skip(&[LOGIN], why);
                self.cx.skip(rest, why);
                return Err(resolved);
            }
        };
        let inside = match nobodys_port().await {
            Ok(port) => {
                self.config.local_port = port;
                self.log_in(&self.config, &resolved, "look").await
            }
            Err(error) => Err(error),
        };
        let message = |inside: &Inside| format!("logged in as {}", inside.session.target);
        self.tell(LOGIN, inside, message).ok_or_else(|| {
            self.cx.skip(rest, "needs a login");
            Some(resolved)
        })
    }

    /// A login as a tunnel's, with a socket of this name.
    async fn log_in(
        &self,
        config: &Config,
        resolved: &Resolved,
        name: &str,
    ) -> Result<Inside, StageError> {
        let asked = Instant::now();
        let mut cx = self.cx.clone();
        cx.instance = format!("{}.{name}-{}", cx.instance, std::process::id());
        let socket = Spare(Socket::reserve(&cx, &resolved.target(config).to_string())?);
        let network = Network::watch(resolved.directly_reached());
        let session = Session::connect(config, resolved, socket.0.path(), &[], &network).await?;
        Ok(Inside {
            resolved: resolved.clone(),
            session,
            took: asked.elapsed(),
            _socket: socket,
        })
    }

    /// Reports an outcome, and returns what it found.
    fn tell<T>(
        &self,
        what: What,
        outcome: Result<T, StageError>,
        message: impl FnOnce(&T) -> String,
    ) -> Option<T> {
        let told = outcome.as_ref().map(message).map_err(Clone::clone);
        self.cx.tell(what, told);
        outcome.ok()
    }
}

/// A port of this machine where nobody listens: what visits a port that we look at gets no further.
async fn nobodys_port() -> Result<u16, StageError> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
    let address = listener.and_then(|l| l.local_addr());
    let failed = |e| StageError::io("cannot have a port of this machine", &e);
    address.map(|a| a.port()).map_err(failed)
}
