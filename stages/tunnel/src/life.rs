//! From the first connection to the last: connect, claim ports, hold them, and get them back when the connection drops.

mod hold;
mod recover;

use std::path::Path;
use std::time::{Duration, Instant};

use futures::future::try_join_all;
use protocol::{Context, StageError};
use tokio::time::timeout;

use crate::Tunnel;
use crate::choices::{PortPolicy, Verify};
use crate::claim::{Claimed, Proof, Unclaimed, Way};
use crate::config::Config;
use crate::diagnosis;
use crate::ghosts::Ghosts;
use crate::network::Network;
use crate::outputs::{Forwarded, Outputs};
use crate::ssh::{ANY_IPV4, Greeting, Resolved, Session, Socket};

/// How long `ready` waits for the ledger to name the server's process. A shell tells it within milliseconds.
const NOTE: Duration = Duration::from_millis(300);
/// How long to wait for the end of a ghost before the port is asked for all the same.
const RECLAIM: Duration = Duration::from_secs(5);

pub(crate) struct Life<'a> {
    cx: &'a Context<Tunnel>,
    config: &'a Config,
    resolved: Resolved,
    /// The tunnel's own first, then one for each of `forwards`.
    ways: Vec<Way>,
    network: Network,
    /// The session that is up, and the ports that are ours in it. Whoever drops the future finds them here to close.
    session: Option<Session>,
    held: Vec<Claimed>,
    ghosts: Ghosts,
    told_unnoted: bool,
    told_wider: bool,
}

pub(crate) async fn run(cx: &Context<Tunnel>, config: &Config) -> Result<(), StageError> {
    check_key(config)?;
    let resolved = tokio::select! {
        resolved = Resolved::ask(config) => resolved?,
        () = cx.shutdown.cancelled() => return Ok(()),
    };
    let socket = Socket::reserve(cx, &resolved.target(config).to_string())?;
    let way = Way::new(config, &resolved);
    let beside = config.forwards.iter().map(|forward| way.beside(forward));
    let ways = std::iter::once(way.clone()).chain(beside).collect();
    let network = Network::watch(resolved.directly_reached());
    let mut life = Life {
        cx,
        config,
        resolved,
        ways,
        network,
        session: None,
        held: Vec::new(),
        ghosts: Ghosts::default(),
        told_unnoted: false,
        told_wider: false,
    };
    let result = tokio::select! {
        result = life.live(&socket) => result,
        () = cx.shutdown.cancelled() => Ok(()),
    };
    if let Some(session) = life.session.take()
        && session.close(&life.held).await
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
        let choices = self.choices(&self.previous_ports())?;
        let claims = self.attempt(socket, choices).await;
        let mut claims = self.accept(claims.map_err(|unclaimed| unclaimed.error)?)?;
        self.ready(&claims).await?;
        loop {
            let lost = self.hold(&claims).await;
            self.ghosts.session_lost();
            let lost_at = Instant::now();
            self.cx.degraded(lost);
            claims = self.recover(socket, claims).await?;
            self.ready(&claims).await?;
            self.told_back(lost_at);
        }
    }

    /// The ports that this instance had on this server in the run before, one for each way.
    fn previous_ports(&self) -> Vec<Option<u16>> {
        let previous = self.cx.previous();
        let previous = previous.filter(|o| o.ssh_host == self.resolved.host);
        let main = previous.as_ref().map(|o| o.port);
        let beside = self.config.forwards.iter().map(|forward| {
            let before = previous.as_ref()?.forwards.get(&forward.name())?;
            Some(before.port)
        });
        std::iter::once(main).chain(beside).collect()
    }

    /// Which ports each way may have, best first: those of before, and all others unless they are pinned.
    fn choices(&self, before: &[Option<u16>]) -> Result<Vec<Vec<u16>>, StageError> {
        let choice = |(way, before): (&Way, &Option<u16>)| match (before, self.config.port_policy) {
            (Some(port), PortPolicy::Pinned) => Ok(vec![*port]),
            _ => way.shuffled(*before),
        };
        self.ways.iter().zip(before).map(choice).collect()
    }

    /// A new ssh, and in it a port for each way.
    async fn attempt(
        &mut self,
        socket: &Socket,
        choices: Vec<Vec<u16>>,
    ) -> Result<Vec<Claimed>, Unclaimed> {
        self.renew(socket).await?;
        let Some(session) = &self.session else {
            return Err(StageError::internal("no session to claim a port in").into());
        };
        self.cx.progress(
            "port",
            format!("logged in to {}; asking it for a port", session.target()),
        );
        let mut choices = self.ways.iter().zip(choices);
        let Some((way, ports)) = choices.next() else {
            return Err(StageError::internal("no way at all").into());
        };
        let only = (ports.len() == 1).then(|| ports[0]);
        let main = match way.claim(session, ports).await {
            Err(unclaimed) if unclaimed.ports_are_lost && self.ghosts.may_hold_the_port() => {
                let error = match only {
                    Some(port) => diagnosis::held_by_a_ghost(session, port),
                    None => unclaimed.error,
                };
                return Err(Unclaimed { error, ..unclaimed });
            }
            claimed => claimed?,
        };
        self.held = vec![main];
        let beside = choices.map(|(way, mut ports)| {
            ports.retain(|port| *port != main.port);
            way.claim(session, ports)
        });
        self.held.extend(try_join_all(beside).await?);
        if !self.ghosts.is_noted()
            && let Ok(greeting) = timeout(NOTE, session.greeting()).await
        {
            self.note(&greeting)?;
        }
        Ok(self.held.clone())
    }

    /// Ends the session that may still be there, and logs in anew.
    async fn renew(&mut self, socket: &Socket) -> Result<(), StageError> {
        let held = std::mem::take(&mut self.held);
        if let Some(old) = self.session.take() {
            match old.close(&held).await {
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
        Ok(())
    }

    async fn connect(&self, socket: &Path) -> Result<Session, StageError> {
        let ghosts = self.ghosts.to_end();
        let public_host = self.ways.first().map_or("", |way| &way.public_host);
        let (mut session, address) = tokio::try_join!(
            Session::connect(self.config, &self.resolved, socket, &ghosts, &self.network),
            async { Ok(bind_address(self.config, public_host).await) },
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

    /// Whether every proof is as good as the user wants it.
    fn accept(&self, claims: Vec<Claimed>) -> Result<Vec<Claimed>, StageError> {
        let mut accepted = self.ways.iter().zip(claims);
        accepted.try_fold(Vec::new(), |mut all, (way, claimed)| {
            all.push(way.accept(claimed)?);
            Ok(all)
        })
    }

    async fn ready(&mut self, claims: &[Claimed]) -> Result<(), StageError> {
        for (way, claimed) in self.ways.iter().zip(claims) {
            let at = format!("{}:{}", way.public_host, claimed.port);
            match claimed.proof {
                Proof::Changed => self.cx.warn(format!(
                    "unverified: connections to {at} arrive here, but their source port is changed on the way and local port {} is in use, so they may have been somebody else's",
                    way.local_port
                )),
                Proof::OutOfReach => self.cx.warn(format!(
                    "unverified: this machine does not get to {at}, so only a pod can tell whether it leads here"
                )),
                Proof::Seen(_) | Proof::NotAskedFor => {}
            }
        }
        let ports: Vec<String> = claims.iter().map(|c| c.port.to_string()).collect();
        let (ports, are, them) = match &ports[..] {
            [port] => (format!("port {port}"), "is", "it"),
            ports => (format!("ports {}", ports.join(", ")), "are", "them"),
        };
        if self.is_open_to_all(claims).await {
            let host = self.ways.first().map_or("", |way| &way.public_host);
            self.cx.warn(format!(
                "{ports} of {host} {are} open to whoever can reach {them}; narrow it with bind_address, a firewall or PermitListen",
            ));
        }
        self.cx.ready(self.outputs(claims)?).await
    }

    /// As far as it was asked for, and, where the user asked for less, as far as the server tells: with `GatewayPorts yes`
    /// it takes all addresses whatever is asked for.
    async fn is_open_to_all(&mut self, claims: &[Claimed]) -> bool {
        let (Some(session), Some(main)) = (&self.session, claims.first()) else {
            return false;
        };
        if session.wants_all_addresses() {
            return true;
        }
        let wider = session.listening(main.port).await.on_all_addresses();
        if wider && !self.told_wider {
            self.told_wider = true;
            self.cx.warn(format!(
                "{} listens on all its addresses, not on {} alone: it needs `GatewayPorts clientspecified` in sshd_config for that",
                session.target(),
                session.bind_address
            ));
        }
        wider
    }

    fn outputs(&self, claims: &[Claimed]) -> Result<Outputs, StageError> {
        let (Some(way), Some((main, beside))) = (self.ways.first(), claims.split_first()) else {
            return Err(StageError::internal("no port to report"));
        };
        let forwards = self.config.forwards.iter().zip(beside);
        let forwards = forwards.map(|(forward, claimed)| {
            let forwarded = Forwarded {
                port: claimed.port,
                local_port: claimed.local_port,
                verified: claimed.proof.verified(),
            };
            (forward.name(), forwarded)
        });
        Ok(Outputs {
            host: way.public_host.clone(),
            port: main.port,
            scheme: self.config.scheme,
            ssh_host: self.resolved.host.clone(),
            local_port: main.local_port,
            verified: main.proof.verified(),
            forwards: forwards.collect(),
        })
    }
}
