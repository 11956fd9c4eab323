//! The diagnostics of `check`, beside a running instance: the steps of a tunnel, and what the server grants.
//!
//! A port of the server is listened on for a moment. It leads to an unused local port, never to the master.

mod bind_policy;
mod first_steps;
mod ports;
mod preflight;
mod server;
mod sshd_config;

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use protocol::{CheckTitle, Codes, Context, StageError};
use tokio::net::TcpListener;

use crate::Tunnel;
use crate::codes;
use crate::config::Config;
use crate::forward::{BoundPort, ForwardSpec};
use crate::network::Network;
use crate::ssh::{Resolved, Socket, SshSession};
pub(crate) use preflight::preflight;
pub(crate) use server::server;

const LOGIN: CheckTitle = ("login", "the server accepts the login");
const FORWARDING: CheckTitle = ("forwarding", "the server allows port forwarding");

/// Errors of a server that refuses to forward any port.
const FORBIDDEN: Codes = &[codes::FORWARDING_FORBIDDEN, codes::PORTS_NOT_PERMITTED];

struct Diagnostics<'a> {
    cx: &'a Context<Tunnel>,
    /// The user's config, with a local port that is not in use.
    config: Config,
    /// ssh's view of the server, once ssh was asked.
    resolved: Option<Resolved>,
}

/// A login for diagnostics.
struct Login {
    spec: ForwardSpec,
    session: SshSession,
    took: Duration,
    _socket: Socket,
}

impl<'a> Diagnostics<'a> {
    fn new(cx: &'a Context<Tunnel>, config: Config) -> Diagnostics<'a> {
        Diagnostics {
            cx,
            config,
            resolved: None,
        }
    }

    /// Runs the checks up to a login and reports each. Without a login the rest is skipped.
    async fn reach_login(&mut self, rest: &[CheckTitle]) -> Option<Login> {
        if let Err(why) = self.run_first_steps().await {
            self.cx.skip(&[LOGIN], why);
            self.cx.skip(rest, why);
            return None;
        }
        let login = match unused_port().await {
            Ok(port) => {
                self.config.local_port = port;
                self.log_in(&self.config, "look").await
            }
            Err(error) => Err(error),
        };
        let message = |login: &Login| format!("logged in as {}", login.session.server);
        let login = self.tell(LOGIN, login, message);
        if login.is_none() {
            self.cx.skip(rest, "needs a login");
        }
        login
    }

    /// Logs in as a tunnel does, with a control socket of this name beside that of a running instance.
    async fn log_in(&self, config: &Config, name: &str) -> Result<Login, StageError> {
        let asked = Instant::now();
        let Some(resolved) = &self.resolved else {
            return Err(StageError::internal("a login before ssh was asked"));
        };
        let name = format!("{}.{name}-{}", self.cx.instance, std::process::id());
        let socket = Socket::reserve(self.cx, &name, &resolved.server(config))?;
        let network = Network::new(resolved.direct_address());
        let session = SshSession::connect(config, resolved, &socket.path, &[], &network).await?;
        Ok(Login {
            spec: ForwardSpec::new(config, resolved),
            session,
            took: asked.elapsed(),
            _socket: socket,
        })
    }

    /// Reports whether the server forwards ports, judged by a claim, and returns the claim. Without forwarding the rest
    /// is skipped.
    fn forwards(
        &self,
        claimed: Result<BoundPort, StageError>,
        rest: &[CheckTitle],
    ) -> Option<Result<BoundPort, StageError>> {
        match claimed {
            Err(error) if error.is_any(FORBIDDEN) => {
                self.cx.report_result(FORWARDING, Err(error));
                self.cx.skip(rest, "needs forwarding");
                None
            }
            claimed => {
                self.cx.report_result(FORWARDING, Ok(String::new()));
                Some(claimed)
            }
        }
    }

    /// Reports a check and returns its value.
    fn tell<T>(
        &self,
        what: CheckTitle,
        outcome: Result<T, StageError>,
        message: impl FnOnce(&T) -> String,
    ) -> Option<T> {
        let described = outcome.as_ref().map(message).map_err(Clone::clone);
        self.cx.report_result(what, described);
        outcome.ok()
    }
}

/// An unused port of this machine: visitors of a checked port get no further.
async fn unused_port() -> Result<u16, StageError> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
    let address = listener.and_then(|l| l.local_addr());
    let failed = |e| StageError::io("cannot bind a port of this machine", &e);
    address.map(|a| a.port()).map_err(failed)
}
