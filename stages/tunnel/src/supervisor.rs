//! Runs a tunnel: connects, claims ports, monitors them, and reconnects when the connection is lost.

mod guards;
mod monitor;
mod publish;
mod reconnect;

use std::os::unix::fs::FileTypeExt;
use std::time::{Duration, Instant};

use futures::future::try_join_all;
use protocol::{Context, StageError, files};
use tokio::time::timeout;

use crate::Tunnel;
use crate::backoff::Backoff;
use crate::claim::ClaimError;
use crate::codes;
use crate::config::Config;
use crate::errors;
use crate::forward::{BoundPort, Forward};
use crate::ghosts::Ghosts;
use crate::guard::{Guards, State};
use crate::memory::Memory;
use crate::network::Network;
use crate::ssh::{Greeting, Resolved, Socket, SshSession};

/// A busy server accepts the next login within seconds.
const BUSY: Duration = Duration::from_secs(10);
/// How long to wait for the end of a ghost before the port is requested anyway.
const RECLAIM: Duration = Duration::from_secs(5);

pub(crate) struct Supervisor<'a> {
    cx: &'a Context<Tunnel>,
    config: &'a Config,
    resolved: Resolved,
    /// The tunnel's own forward is the first.
    forwards: Vec<Forward>,
    guards: Guards,
    memory: Memory,
    /// The states of the guards that were reported last.
    reported: Vec<State>,
    network: Network,
    /// The current session. If the future is dropped, it is closed from here.
    session: Option<SshSession>,
    ghosts: Ghosts,
    warned_no_commands: bool,
    warned_wider_bind: bool,
}

pub(crate) async fn run(cx: &Context<Tunnel>, config: &Config) -> Result<(), StageError> {
    check_key(config)?;
    check_ssh_files(config)?;
    let resolved = tokio::select! {
        resolved = Resolved::from_ssh(config) => resolved?,
        () = cx.shutdown.cancelled() => return Ok(()),
    };
    let socket = Socket::reserve(cx, &cx.instance, &resolved.server(config))?;
    let guards = Guards::start(cx, config)?;
    let memory = Memory::open(cx);
    let forwards = Forward::all(config, &resolved, memory.last(cx), &guards, &cx.identity()?);
    let network = Network::new(resolved.direct_address());
    let mut supervisor = Supervisor {
        cx,
        config,
        resolved,
        forwards,
        guards,
        memory,
        reported: Vec::new(),
        network,
        session: None,
        ghosts: Ghosts::default(),
        warned_no_commands: false,
        warned_wider_bind: false,
    };
    let result = tokio::select! {
        result = supervisor.run(&socket) => result,
        () = cx.shutdown.cancelled() => Ok(()),
    };
    if let Some(session) = supervisor.session.take()
        && session.close().await
    {
        supervisor.ghosts.session_ended()?;
    }
    socket.release()?;
    supervisor.say_what_is_free();
    supervisor.guards.release()?;
    supervisor.memory.release()?;
    result
}

/// ssh would wait for the writer of a FIFO.
fn check_ssh_files(config: &Config) -> Result<(), StageError> {
    let files = [
        ("known_hosts_path", &config.known_hosts_path),
        ("ssh_config_path", &config.ssh_config_path),
    ];
    for (field, path) in files {
        let Some(path) = path else { continue };
        if std::fs::metadata(path).is_ok_and(|it| it.file_type().is_fifo()) {
            let message = format!("{field}: {} is not a regular file", path.display());
            return Err(StageError::new(protocol::codes::CONFIG, message));
        }
    }
    Ok(())
}

pub(crate) fn check_key(config: &Config) -> Result<(), StageError> {
    let Some(path) = &config.ssh_key_path else {
        return Ok(());
    };
    let shown = path.display();
    if path.extension().is_some_and(|e| e == "pub") {
        return Err(
            StageError::new(codes::KEY_INVALID, format!("{shown} is a public key")).hint(format!(
                "set ssh_key_path to the private key: {}",
                path.with_extension("").display()
            )),
        );
    }
    match files::open_named(path) {
        Ok(_) => Ok(()),
        Err(e) => Err(
            StageError::new(codes::KEY_MISSING, format!("cannot open ssh key {shown}")).source(&e),
        ),
    }
}

impl Supervisor<'_> {
    async fn run(&mut self, socket: &Socket) -> Result<(), StageError> {
        self.cx.progress(
            "connect",
            format!("connecting to {}", self.resolved.server(self.config)),
        );
        let bound = self.first_attempt(socket).await?;
        self.bind(bound);
        self.ready().await?;
        loop {
            let Err(lost) = self.monitor().await;
            self.ghosts.session_lost();
            let lost_at = Instant::now();
            self.cx.degraded(lost);
            self.reconnect(socket).await?;
            self.ready().await?;
            self.log_recovery(lost_at);
        }
    }

    /// Retries while the server is busy.
    async fn first_attempt(&mut self, socket: &Socket) -> Result<Vec<BoundPort>, StageError> {
        let mut backoff = Backoff::new(self.config.reconnect_pause.duration());
        let from = Instant::now();
        loop {
            let error = match self.attempt(socket, false).await {
                Ok(bound) => return Ok(bound),
                Err(unclaimed) => unclaimed.error,
            };
            if !error.is(codes::SERVER_BUSY) || from.elapsed() > BUSY {
                return Err(error);
            }
            self.cx.progress("busy", error.message);
            tokio::time::sleep(backoff.next()).await;
        }
    }

    /// Starts a new ssh and claims a port for each forward. With `insist` the tunnel's own must be the previous one.
    async fn attempt(
        &mut self,
        socket: &Socket,
        insist: bool,
    ) -> Result<Vec<BoundPort>, ClaimError> {
        self.renew(socket).await?;
        let Some(session) = &self.session else {
            return Err(StageError::internal("no session to claim a port in").into());
        };
        self.cx.progress(
            "port",
            format!("logged in to {}; requesting a port", session.server),
        );
        let policy = self.config.port_policy;
        let (own, more) = (&self.forwards[0], &self.forwards[1..]);
        let ports = own.ports(policy, insist);
        let only = (ports.len() == 1).then(|| ports[0]);
        let own = own.claim(session, ports).await.map_err(|unclaimed| {
            let is_held = unclaimed.port_conflict && self.ghosts.may_hold_port();
            let error = match only.filter(|_| is_held) {
                Some(port) => errors::held_by_ghost(session, port),
                None => unclaimed.error,
            };
            ClaimError { error, ..unclaimed }
        })?;
        let more = more.iter().map(async |forward| {
            let mut ports = forward.ports(policy, false);
            ports.retain(|port| *port != own.port);
            forward.claim(session, ports).await
        });
        let mut bound = vec![own];
        bound.extend(try_join_all(more).await?);
        Ok(bound)
    }

    /// Records the claimed ports. Returns those that changed: the previous and the new port.
    fn bind(&mut self, bound: Vec<BoundPort>) -> Vec<(u16, u16)> {
        if self.forwards[0].bound.as_ref() == bound.first() {
            self.ghosts.clear_unknown();
        }
        let forwards = self.forwards.iter_mut().zip(bound);
        let moved = forwards.filter_map(|(forward, now)| Some((forward.bind(now)?, now.port)));
        moved.collect()
    }

    /// Ends the previous session and logs in again.
    async fn renew(&mut self, socket: &Socket) -> Result<(), StageError> {
        if let Some(old) = self.session.take() {
            match old.close().await {
                true => self.ghosts.session_ended()?,
                false if self.ghosts.is_noted() => self.ghosts.session_lost(),
                false => {}
            }
        }
        socket.clear();
        let (config, resolved, ghosts) = (self.config, &self.resolved, self.ghosts.lost_sessions());
        let session =
            SshSession::connect(config, resolved, &socket.path, &ghosts, &self.network).await?;
        let session = self.session.insert(session);
        if !ghosts.is_empty() {
            self.cx.progress(
                "reclaim",
                format!("ending our earlier session on {}", session.server),
            );
            if let Ok(greeting) = timeout(RECLAIM, session.greeting()).await {
                self.note(&greeting)?;
            }
        }
        Ok(())
    }

    fn note(&mut self, greeting: &Greeting) -> Result<(), StageError> {
        let Some(session) = &self.session else {
            return Ok(());
        };
        for ended in self.ghosts.settle(greeting)? {
            self.cx.info(format!(
                "{} still held our earlier session; its process {} is ended now",
                session.server, ended.pid
            ));
        }
        if !self.ghosts.note(session, greeting, &self.cx.ledger)? && !self.warned_no_commands {
            self.warned_no_commands = true;
            self.cx.info(format!(
                "{} does not run commands for this account: after a network loss the port stays in use until the server notices the loss",
                session.server
            ));
        }
        Ok(())
    }
}
