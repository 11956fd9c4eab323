//! From the first connection to the last: connect, claim a port, hold it, and get it back when the connection drops.

use std::path::Path;
use std::time::{Duration, Instant};

use protocol::{Context, StageError};
use tokio::time::{MissedTickBehavior, timeout};

use crate::Tunnel;
use crate::backoff::Backoff;
use crate::claim::{Claimed, Unclaimed, Way};
use crate::config::{Config, Outputs, PortPolicy, Verified, Verify};
use crate::diagnosis;
use crate::ghosts::Ghosts;
use crate::network::Network;
use crate::ssh::{ANY_IPV4, Greeting, Resolved, Session, Socket};

/// Two proofs in a row have to fail: one may have met a moment without network.
const FAILED_PROOFS: u32 = 2;

/// How long `ready` waits for the ledger to name the server's process. A shell tells it within milliseconds.
const NOTE: Duration = Duration::from_millis(300);
/// How long to wait for the end of a ghost before the port is asked for all the same.
const RECLAIM: Duration = Duration::from_secs(5);
/// How long to insist on a port that somebody else has,
const KEEP_PORT: Duration = Duration::from_secs(60);
/// and on one that our own earlier session may still have.
const OUTWAIT_GHOST: Duration = Duration::from_secs(60 * 60);

pub(crate) struct Life<'a> {
    cx: &'a Context<Tunnel>,
    config: &'a Config,
    resolved: Resolved,
    way: Way,
    network: Network,
    /// The session that is up, and the port that is ours in it. Whoever drops the future finds them here to close.
    session: Option<Session>,
    port: Option<u16>,
    ghosts: Ghosts,
    told_unnoted: bool,
}

pub(crate) async fn run(cx: &Context<Tunnel>, config: &Config) -> Result<(), StageError> {
    check_key(config)?;
    let resolved = tokio::select! {
        resolved = Resolved::ask(config) => resolved?,
        () = cx.shutdown.cancelled() => return Ok(()),
    };
    let socket = Socket::reserve(cx, &resolved.target(config).to_string())?;
    let way = Way::new(config, &resolved);
    let network = Network::watch(resolved.directly_reached());
    let mut life = Life {
        cx,
        config,
        resolved,
        way,
        network,
        session: None,
        port: None,
        ghosts: Ghosts::default(),
        told_unnoted: false,
    };
    let result = tokio::select! {
        result = life.live(&socket) => result,
        () = cx.shutdown.cancelled() => Ok(()),
    };
    if let Some(session) = life.session.take()
        && session.close(life.port).await
    {
        life.ghosts.session_ended()?;
    }
    socket.release()?;
    result
}

pub(crate) fn check_key(config: &Config) -> Result<(), StageError> {
    let Some(path) = &config.ssh_key_path else {
        return Ok(());
    };
    let shown = path.display();
    if path.extension().is_some_and(|e| e == "pub") {
        return Err(
            StageError::new("tunnel.key_invalid", format!("{shown} is a public key")).hint(
                format!(
                    "ssh_key_path has to be the private one: {}",
                    path.with_extension("").display()
                ),
            ),
        );
    }
    match std::fs::File::open(path) {
        Ok(_) => Ok(()),
        Err(e) => Err(StageError::new(
            "tunnel.key_missing",
            format!("cannot open ssh key {shown}"),
        )
        .hint("correct ssh_key_path, or leave it out to use what ssh_config and the agent offer")
        .source(&e)),
    }
}

/// All addresses of the server, unless the config says otherwise. Asked for as IPv4's: a server that is asked for any
/// address takes `[::]` alone for a success while somebody else has the port on IPv4.
pub(crate) async fn bind_address(config: &Config, public_host: &str) -> String {
    if let Some(address) = &config.bind_address {
        return address.clone();
    }
    let addresses = match config.verify {
        Verify::Off => None,
        _ => tokio::net::lookup_host((public_host, 0)).await.ok(),
    };
    let mut addresses = addresses.into_iter().flatten().peekable();
    let only_ipv6 = addresses.peek().is_some() && addresses.all(|a| a.is_ipv6());
    if only_ipv6 { "*" } else { ANY_IPV4 }.to_owned()
}

impl Life<'_> {
    async fn live(&mut self, socket: &Socket) -> Result<(), StageError> {
        self.cx.progress(
            "connect",
            format!("connecting to {}", self.resolved.target(self.config)),
        );
        let previous = self
            .cx
            .previous()
            .filter(|o| o.ssh_host == self.resolved.host)
            .map(|o| o.port);
        let ports = match (previous, self.config.port_policy) {
            (Some(port), PortPolicy::Pinned) => vec![port],
            _ => shuffled(self.config, previous)?,
        };
        let claimed = self.attempt(socket, ports).await;
        let mut claimed = self
            .way
            .accept(claimed.map_err(|unclaimed| unclaimed.error)?)?;
        self.ready(claimed).await?;
        loop {
            let lost = self.hold(claimed).await;
            self.ghosts.session_lost();
            let lost_at = Instant::now();
            self.cx.degraded(lost);
            claimed = self.recover(socket, claimed).await?;
            self.ready(claimed).await?;
            self.told_back(lost_at);
        }
    }

    /// A new ssh, and one of these ports in it.
    async fn attempt(&mut self, socket: &Socket, ports: Vec<u16>) -> Result<Claimed, Unclaimed> {
        let only = (ports.len() == 1).then(|| ports[0]);
        let old_port = self.port.take();
        if let Some(old) = self.session.take() {
            match old.close(old_port).await {
                true => self.ghosts.session_ended()?,
                false if self.ghosts.is_noted() => self.ghosts.session_lost(),
                false => {}
            }
        }
        socket.clear();
        let session = self.connect(socket.path()).await?;
        let session = self.session.insert(session);
        if !self.ghosts.to_end().is_empty() {
            self.cx.progress(
                "reclaim",
                format!("having {} end our earlier session", session.target()),
            );
            if let Ok(greeting) = timeout(RECLAIM, session.greeting()).await {
                self.note(&greeting)?;
            }
        }
        let Some(session) = &self.session else {
            return Err(StageError::internal("no session to claim a port in").into());
        };
        self.cx.progress(
            "port",
            format!("logged in to {}; asking it for a port", session.target()),
        );
        let claimed = match self.way.claim(session, ports).await {
            Err(unclaimed) if unclaimed.ports_are_lost && self.ghosts.may_hold_the_port() => {
                let error = match only {
                    Some(port) => diagnosis::held_by_a_ghost(session, port),
                    None => unclaimed.error,
                };
                return Err(Unclaimed { error, ..unclaimed });
            }
            claimed => claimed?,
        };
        self.port = Some(claimed.port);
        if !self.ghosts.is_noted()
            && let Ok(greeting) = timeout(NOTE, session.greeting()).await
        {
            self.note(&greeting)?;
        }
        Ok(claimed)
    }

    async fn connect(&self, socket: &Path) -> Result<Session, StageError> {
        let ghosts = self.ghosts.to_end();
        let (mut session, address) = tokio::try_join!(
            Session::connect(self.config, &self.resolved, socket, &ghosts, &self.network),
            async { Ok(bind_address(self.config, &self.way.public_host).await) },
        )?;
        session.bind_address = address;
        Ok(session)
    }

    fn note(&mut self, greeting: &Greeting) -> Result<(), StageError> {
        let Some(session) = &self.session else {
            return Ok(());
        };
        for ended in self.ghosts.settle(greeting)? {
            self.cx.info(format!(
                "{} still held our earlier session: its process {} is ended",
                session.target(),
                ended.pid()
            ));
        }
        if !self.ghosts.note(session, greeting, &self.cx.ledger)? && !self.told_unnoted {
            self.told_unnoted = true;
            self.cx.info(format!(
                "{} runs no commands for us: when the network drops, the port stays taken until the server notices by itself",
                session.target()
            ));
        }
        Ok(())
    }

    fn told_back(&self, lost_at: Instant) {
        let seconds = lost_at.elapsed().as_secs_f64();
        self.cx.info(format!("ready again after {seconds:.1} s"));
    }

    async fn ready(&self, claimed: Claimed) -> Result<(), StageError> {
        if claimed.verified == Verified::Unverified && self.way.is_verified() {
            self.cx.warn(format!(
                "unverified: connections to {}:{} arrive here, but their source port is changed on the way and local port {} is in use, so they may have been somebody else's",
                self.way.public_host, claimed.port, self.way.local_port
            ));
        }
        if self.is_open_to_all() {
            self.cx.warn(format!(
                "port {} of {} is open to whoever can reach it; narrow it with bind_address, a firewall or PermitListen",
                claimed.port, self.way.public_host
            ));
        }
        self.cx.ready(self.outputs(claimed)).await
    }

    /// As far as it was asked for: a server with GatewayPorts off listens on loopback all the same.
    fn is_open_to_all(&self) -> bool {
        let address = self.session.as_ref().map(|s| s.bind_address.as_str());
        matches!(address, Some(ANY_IPV4 | "*" | "" | "::"))
    }

    fn outputs(&self, claimed: Claimed) -> Outputs {
        Outputs {
            host: self.way.public_host.clone(),
            port: claimed.port,
            scheme: self.config.scheme,
            ssh_host: self.resolved.host.clone(),
            local_port: self.way.local_port,
            verified: claimed.verified,
        }
    }

    /// Holds until the connection is lost. A way that closes while the connection stands is reported, and so is its return.
    async fn hold(&mut self, claimed: Claimed) -> StageError {
        let outputs = self.outputs(claimed);
        let (cx, way) = (self.cx, self.way.clone());
        let Some(session) = &self.session else {
            return StageError::internal("no session to hold");
        };
        let mut prober = way.prober(session);
        let mut probes = tokio::time::interval(self.config.probe_interval.duration());
        probes.set_missed_tick_behavior(MissedTickBehavior::Delay);
        probes.reset();
        let (mut failed, mut closed_at) = (0, Instant::now());
        let mut greeted = self.ghosts.is_noted();
        loop {
            let Some(session) = &mut self.session else {
                return StageError::internal("no session to hold");
            };
            let greeting = session.greeting();
            let next_proof = async {
                probes.tick().await;
                prober.prove_again(claimed.port).await
            };
            let proof = tokio::select! {
                lost = session.ended() => return lost,
                proof = next_proof, if way.is_verified() => proof,
                greeting = greeting, if !greeted => {
                    greeted = true;
                    match self.note(&greeting) {
                        Ok(()) => continue,
                        Err(error) => return error,
                    }
                }
            };
            match proof {
                Ok(()) if failed >= FAILED_PROOFS => {
                    failed = 0;
                    if let Err(error) = cx.ready(outputs.clone()).await {
                        return error;
                    }
                    self.told_back(closed_at);
                }
                Ok(()) => failed = 0,
                Err(error) => {
                    if failed == 0 {
                        closed_at = Instant::now();
                    }
                    failed += 1;
                    if failed == FAILED_PROOFS {
                        cx.degraded(diagnosis::closed(&way, claimed.port, &error));
                    }
                }
            }
        }
    }

    /// Tries for ever: on the same port, until somebody else has had it for too long.
    async fn recover(&mut self, socket: &Socket, before: Claimed) -> Result<Claimed, StageError> {
        let mut backoff = Backoff::up_to(self.config.reconnect_pause.duration());
        let mut told = String::new();
        let mut port_lost: Option<(Instant, StageError)> = None;
        loop {
            let network = async {
                match told.as_str() {
                    "tunnel.server_unreachable"
                    | "tunnel.server_refused"
                    | "tunnel.server_timeout" => {
                        self.network.returned().await;
                    }
                    // The server answers, and says no.
                    _ => self.network.changed().await,
                }
            };
            if timeout(backoff.next(), network).await.is_ok() {
                backoff.begin_anew();
            }
            let patience = match self.config.keep_port {
                Some(seconds) => seconds.duration(),
                None if self.ghosts.may_hold_the_port() => OUTWAIT_GHOST,
                None => KEEP_PORT,
            };
            let ports = match &port_lost {
                Some((at, why)) if at.elapsed() >= patience => {
                    if self.config.port_policy == PortPolicy::Pinned {
                        return Err(diagnosis::pinned(before.port, why));
                    }
                    shuffled(self.config, Some(before.port))?
                }
                _ => vec![before.port],
            };
            let unclaimed = match self.attempt(socket, ports).await {
                // The proof of then stands, even where the master is now in the way of another. Other outputs would restart it.
                Ok(claimed) if claimed.port == before.port => {
                    self.ghosts.laid();
                    return Ok(before);
                }
                Ok(claimed) => match self.way.accept(claimed) {
                    Ok(claimed) => {
                        self.cx.warn(format!(
                            "port {} could not be had again, it is {} now: {}",
                            before.port,
                            claimed.port,
                            port_lost.map_or_else(String::new, |(_, why)| why.message)
                        ));
                        return Ok(claimed);
                    }
                    Err(error) => error.into(),
                },
                Err(unclaimed) => unclaimed,
            };
            if unclaimed.ports_are_lost {
                port_lost = match port_lost {
                    Some((at, _)) => Some((at, unclaimed.error.clone())),
                    None => Some((Instant::now(), unclaimed.error.clone())),
                };
            }
            if told != unclaimed.error.code {
                told.clone_from(&unclaimed.error.code);
                self.cx.degraded(unclaimed.error);
            }
        }
    }
}

pub(crate) fn shuffled(config: &Config, first_choice: Option<u16>) -> Result<Vec<u16>, StageError> {
    let shuffled = config.remote_port_range.shuffled(first_choice);
    shuffled.map_err(|e| StageError::internal(format!("no random numbers: {e}")))
}
