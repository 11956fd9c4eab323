//! From the first connection to the last: connect, claim ports, hold them, and get them back when the connection drops.

mod hold;
mod recover;
mod report;

use std::path::Path;
use std::time::{Duration, Instant};

use futures::future::try_join_all;
use protocol::{Context, StageError};
use tokio::time::timeout;

use crate::Tunnel;
use crate::backoff::Backoff;
use crate::choices::{PortPolicy, Verify};
use crate::claim::{Claimed, Unclaimed, Way};
use crate::config::Config;
use crate::diagnosis;
use crate::ghosts::Ghosts;
use crate::network::Network;
use crate::ssh::{ANY_IPV4, Greeting, Resolved, Session, Socket};

/// How long `ready` waits for the ledger to name the server's process. A shell tells it within milliseconds.
const NOTE: Duration = Duration::from_millis(300);
/// A server that is asked by many at once takes the next login within seconds.
const BUSY: Duration = Duration::from_secs(10);
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
        let claims = self.first_attempt(socket).await?;
        let mut claims = self.accept(claims)?;
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

    /// A server that is busy for a moment is given one.
    async fn first_attempt(&mut self, socket: &Socket) -> Result<Vec<Claimed>, StageError> {
        let choices = self.choices(&self.previous_ports())?;
        let mut backoff = Backoff::up_to(self.config.reconnect_pause.duration());
        let from = Instant::now();
        loop {
            let error = match self.attempt(socket, choices.clone()).await {
                Ok(claims) => return Ok(claims),
                Err(unclaimed) => unclaimed.error,
            };
            if error.code != "tunnel.server_busy" || from.elapsed() > BUSY {
                return Err(error);
            }
            self.cx.progress("busy", error.message);
            tokio::time::sleep(backoff.next()).await;
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
}
