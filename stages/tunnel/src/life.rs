//! From the first connection to the last: connect, claim a port, hold it, and get it back when the connection drops.

use std::path::Path;
use std::time::Instant;

use protocol::{Context, StageError};
use tokio::time::MissedTickBehavior;

use crate::Tunnel;
use crate::backoff::Backoff;
use crate::claim::{Claimed, Unclaimed, Way};
use crate::config::{Config, Outputs, Verified, Verify};
use crate::diagnosis;
use crate::ssh::{ANY_IPV4, Resolved, Session, Socket};

/// Two proofs in a row have to fail: one may have met a moment without network.
const FAILED_PROOFS: u32 = 2;

pub(crate) struct Life<'a> {
    cx: &'a Context<Tunnel>,
    config: &'a Config,
    resolved: Resolved,
    way: Way,
    /// The session that is up, and the port that is ours in it. Whoever drops the future finds them here to close.
    session: Option<Session>,
    port: Option<u16>,
}

pub(crate) async fn run(cx: &Context<Tunnel>, config: &Config) -> Result<(), StageError> {
    check_key(config)?;
    let resolved = tokio::select! {
        resolved = Resolved::ask(config) => resolved?,
        () = cx.shutdown.cancelled() => return Ok(()),
    };
    let socket = Socket::reserve(cx, &resolved.target(config).to_string())?;
    let way = Way::new(config, &resolved);
    let mut life = Life {
        cx,
        config,
        resolved,
        way,
        session: None,
        port: None,
    };
    let result = tokio::select! {
        result = life.live(&socket) => result,
        () = cx.shutdown.cancelled() => Ok(()),
    };
    if let Some(session) = life.session.take() {
        session.close(life.port).await;
    }
    socket.release()?;
    result
}

fn check_key(config: &Config) -> Result<(), StageError> {
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
async fn bind_address(config: &Config, public_host: &str) -> String {
    if let Some(address) = &config.bind_address {
        return address.clone();
    }
    let addresses = match config.verify {
        Verify::Off => None,
        Verify::Auto | Verify::Require => tokio::net::lookup_host((public_host, 0)).await.ok(),
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
        let ports = shuffled(self.config, previous)?;
        let claimed = self.attempt(socket, ports).await;
        let mut claimed = self
            .way
            .accept(claimed.map_err(|unclaimed| unclaimed.error)?)?;
        self.ready(claimed).await?;
        loop {
            let lost = self.hold(claimed).await;
            self.cx.degraded(lost);
            claimed = self.recover(socket, claimed).await?;
            self.ready(claimed).await?;
        }
    }

    /// A new ssh, and one of these ports in it.
    async fn attempt(&mut self, socket: &Socket, ports: Vec<u16>) -> Result<Claimed, Unclaimed> {
        self.port = None;
        if let Some(old) = self.session.take() {
            old.close(None).await;
        }
        socket.clear();
        let session = self.connect(socket.path()).await?;
        let session = self.session.insert(session);
        self.cx.progress(
            "port",
            format!("logged in to {}; asking it for a port", session.target()),
        );
        let claimed = self.way.claim(session, ports).await?;
        self.port = Some(claimed.port);
        Ok(claimed)
    }

    async fn connect(&self, socket: &Path) -> Result<Session, StageError> {
        let (mut session, address) = tokio::try_join!(
            Session::connect(self.config, &self.resolved, socket),
            async { Ok(bind_address(self.config, &self.way.public_host).await) },
        )?;
        session.bind_address = address;
        Ok(session)
    }

    async fn ready(&self, claimed: Claimed) -> Result<(), StageError> {
        if claimed.verified == Verified::Unverified && self.way.is_verified() {
            self.cx.warn(format!(
                "unverified: connections to {}:{} arrive here, but their source port is changed on the way and local port {} is in use, so they may have been somebody else's",
                self.way.public_host, claimed.port, self.way.local_port
            ));
        }
        self.cx.ready(self.outputs(claimed)).await
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
        let (cx, way) = (self.cx, &self.way);
        let Some(session) = &mut self.session else {
            return StageError::internal("no session to hold");
        };
        let mut prober = way.prober(session);
        let mut probes = tokio::time::interval(self.config.probe_interval.duration());
        probes.set_missed_tick_behavior(MissedTickBehavior::Delay);
        probes.reset();
        let mut failed = 0;
        loop {
            let next_proof = async {
                probes.tick().await;
                prober.prove_again(claimed.port).await
            };
            let proof = tokio::select! {
                lost = session.ended() => return lost,
                proof = next_proof, if way.is_verified() => proof,
            };
            match proof {
                Ok(()) if failed >= FAILED_PROOFS => {
                    failed = 0;
                    if let Err(error) = cx.ready(outputs.clone()).await {
                        return error;
                    }
                }
                Ok(()) => failed = 0,
                Err(error) => {
                    failed += 1;
                    if failed == FAILED_PROOFS {
                        cx.degraded(diagnosis::closed(way, claimed.port, &error));
                    }
                }
            }
        }
    }

    /// Tries for ever: on the same port, until somebody else has had it for too long.
    async fn recover(&mut self, socket: &Socket, before: Claimed) -> Result<Claimed, StageError> {
        let mut backoff = Backoff::default();
        let mut told = String::new();
        let mut port_lost_at: Option<Instant> = None;
        loop {
            tokio::time::sleep(backoff.next()).await;
            let patience = self.config.keep_port.duration();
            let ports = match port_lost_at {
                Some(at) if at.elapsed() >= patience => shuffled(self.config, Some(before.port))?,
                _ => vec![before.port],
            };
            let unclaimed = match self.attempt(socket, ports).await {
                // The proof of then stands, even where the master is now in the way of another. Other outputs would restart it.
                Ok(claimed) if claimed.port == before.port => return Ok(before),
                Ok(claimed) => match self.way.accept(claimed) {
                    Ok(claimed) => {
                        self.cx.warn(format!(
                            "port {} could not be had again: it is {} now",
                            before.port, claimed.port
                        ));
                        return Ok(claimed);
                    }
                    Err(error) => error.into(),
                },
                Err(unclaimed) => unclaimed,
            };
            if unclaimed.ports_are_lost {
                port_lost_at.get_or_insert_with(Instant::now);
            }
            if told != unclaimed.error.code {
                told.clone_from(&unclaimed.error.code);
                self.cx.degraded(unclaimed.error);
            }
        }
    }
}

fn shuffled(config: &Config, first_choice: Option<u16>) -> Result<Vec<u16>, StageError> {
    let shuffled = config.remote_port_range.shuffled(first_choice);
    shuffled.map_err(|e| StageError::internal(format!("no random numbers: {e}")))
}
