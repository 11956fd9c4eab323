//! How a port of the server becomes ours: the server's own bind says whether it is free, a visitor from outside whether it
//! leads here.

use std::time::{Duration, Instant};

use protocol::StageError;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::arrival::{self, NotArrived, Prober};
use crate::choices::Verify;
use crate::config::{Config, Forward};
use crate::diagnosis::{self, Refusals};
use crate::outputs::Verified;
use crate::port_range::PortRange;
use crate::ssh::{NotListening, Refusal, Resolved, Session};

/// Ports that were granted and lead elsewhere. More of them would tell nothing new.
const GRANTED: usize = 3;
/// A granted port is proven within a few round trips. After that the next one is asked for too, and the first to be
/// proven wins: a server may well grant a port on `[::]` alone, while somebody else has it on IPv4.
const HEDGE: Duration = Duration::from_millis(30);

/// How long to look for a way that need not be there.
const OUT_OF_REACH: Duration = Duration::from_secs(2);

/// The way from a pod to a port of this machine, but for the port of the server.
#[derive(Clone, Debug)]
pub(crate) struct Way {
    pub(crate) public_host: String,
    pub(crate) local_port: u16,
    pub(crate) range: PortRange,
    verify: Verify,
    /// Pods use another address than ssh does. This machine need not get there.
    pub(crate) is_other_host: bool,
}

/// A port that is ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Claimed {
    pub(crate) port: u16,
    pub(crate) local_port: u16,
    pub(crate) proof: Proof,
}

/// What is known of the way to a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Proof {
    /// As good as it gets.
    Seen(Verified),
    /// Visitors arrive with another source port, and the local port is in use.
    Changed,
    /// This machine does not get to the address that pods use.
    OutOfReach,
    /// Nobody asked for one.
    NotAskedFor,
}

impl Proof {
    pub(crate) fn verified(self) -> Verified {
        match self {
            Proof::Seen(verified) => verified,
            Proof::Changed | Proof::OutOfReach | Proof::NotAskedFor => Verified::Unverified,
        }
    }
}

/// No port is ours.
#[derive(Debug)]
pub(crate) struct Unclaimed {
    pub(crate) error: StageError,
    /// Somebody else has these ports: others may serve.
    pub(crate) ports_are_lost: bool,
}

impl From<StageError> for Unclaimed {
    fn from(error: StageError) -> Self {
        Unclaimed {
            error,
            ports_are_lost: false,
        }
    }
}

impl Way {
    /// The tunnel's own.
    pub(crate) fn new(config: &Config, resolved: &Resolved) -> Way {
        let other = config.public_host.as_ref();
        let other =
            other.filter(|host| **host != resolved.host && **host != config.reverse_proxy_host);
        Way {
            public_host: other.unwrap_or(&resolved.host).clone(),
            local_port: config.local_port,
            range: config.remote_port_range,
            verify: config.verify,
            is_other_host: other.is_some(),
        }
    }

    /// That of one more forward.
    pub(crate) fn beside(&self, forward: &Forward) -> Way {
        Way {
            local_port: forward.local_port,
            range: forward.remote_port_range.unwrap_or(self.range),
            ..self.clone()
        }
    }

    pub(crate) fn prober(&self, session: &Session) -> Prober {
        Prober {
            host: self.public_host.clone(),
            local_port: self.local_port,
            verify: self.verify,
            log: session.log(),
            patience: match self.may_be_out_of_reach() {
                true => OUT_OF_REACH,
                false => arrival::CONNECT,
            },
        }
    }

    /// The same way, whose ports are taken as the server grants them.
    pub(crate) fn unproven(&self) -> Way {
        Way {
            verify: Verify::Off,
            ..self.clone()
        }
    }

    /// Visitors from this machine get there, whoever else does.
    pub(crate) async fn leads_to_loopback(&self) -> bool {
        let addresses = tokio::net::lookup_host((self.public_host.as_str(), 0)).await;
        addresses.is_ok_and(|mut addresses| addresses.any(|a| a.ip().is_loopback()))
    }

    pub(crate) fn is_verified(&self) -> bool {
        self.verify != Verify::Off
    }

    /// Every port of the range in random order, `first_choice` before all others.
    pub(crate) fn shuffled(&self, first_choice: Option<u16>) -> Result<Vec<u16>, StageError> {
        let shuffled = self.range.shuffled(first_choice);
        shuffled.map_err(|e| StageError::internal(format!("no random numbers: {e}")))
    }

    /// Claims the first of these ports that the server grants and that leads here.
    pub(crate) async fn claim(
        &self,
        session: &Session,
        ports: Vec<u16>,
    ) -> Result<Claimed, Unclaimed> {
        let mut claim = Claim::new(self, session, ports);
        let (port, proof) = match self.is_verified() {
            true => claim.first_proven().await?,
            false => (claim.first_granted().await?, Proof::NotAskedFor),
        };
        let claimed = Claimed {
            port,
            local_port: self.local_port,
            proof,
        };
        claim.release_all_but(Some(port)).await;
        Ok(claimed)
    }

    /// Whether the proof is as good as the user wants it.
    pub(crate) fn accept(&self, claimed: Claimed) -> Result<Claimed, StageError> {
        let verified = claimed.proof.verified();
        let good_enough = match self.verify {
            Verify::Require => verified != Verified::Unverified,
            Verify::Origin => verified == Verified::Origin,
            Verify::Nonce => verified == Verified::Nonce,
            Verify::Auto | Verify::Tcp | Verify::Off => true,
        };
        if good_enough {
            Ok(claimed)
        } else {
            Err(diagnosis::unverified(self, claimed.port, self.verify))
        }
    }

    /// That this machine does not get to the port proves nothing, and the user can live with that.
    pub(crate) fn may_be_out_of_reach(&self) -> bool {
        self.is_other_host && self.verify == Verify::Auto
    }
}

fn lost(error: StageError) -> Unclaimed {
    Unclaimed {
        error,
        ports_are_lost: true,
    }
}

/// A claim under way.
struct Claim<'a> {
    way: &'a Way,
    session: &'a Session,
    ports: std::vec::IntoIter<u16>,
    refusals: Refusals,
    granted: Vec<u16>,
    proofs: JoinSet<(u16, Result<Proof, NotArrived>)>,
}

impl<'a> Claim<'a> {
    fn new(way: &'a Way, session: &'a Session, ports: Vec<u16>) -> Claim<'a> {
        Claim {
            way,
            session,
            ports: ports.into_iter(),
            refusals: Refusals::default(),
            granted: Vec::new(),
            proofs: JoinSet::new(),
        }
    }

    async fn first_granted(&mut self) -> Result<u16, Unclaimed> {
        let granted = self.next_granted().await?;
        granted.ok_or_else(|| self.none_granted())
    }

    async fn first_proven(&mut self) -> Result<(u16, Proof), Unclaimed> {
        let mut elsewhere = None;
        loop {
            let patience = self.ask_for_another().await?;
            let Ok(proof) = timeout(patience, self.proofs.join_next()).await else {
                continue;
            };
            match proof {
                Some(Ok((port, Ok(proof)))) => return Ok((port, proof)),
                Some(Ok((port, Err(NotArrived::Elsewhere)))) => elsewhere = Some(port),
                Some(Ok((port, Err(NotArrived::Unreachable(error))))) => {
                    return self.without_a_connection(port, &error).await;
                }
                Some(Err(e)) => {
                    return Err(StageError::internal(format!("a proof broke off: {e}")).into());
                }
                None => {
                    let unclaimed = match elsewhere {
                        Some(port) => {
                            lost(diagnosis::elsewhere(self.way, self.session, port).await)
                        }
                        None => self.none_granted(),
                    };
                    self.release_all_but(None).await;
                    return Err(unclaimed);
                }
            }
        }
    }

    async fn without_a_connection(
        &self,
        port: u16,
        error: &std::io::Error,
    ) -> Result<(u16, Proof), Unclaimed> {
        let listening = self.session.listening(port).await;
        // Whoever refuses was reached.
        let was_reached = error.kind() == std::io::ErrorKind::ConnectionRefused;
        if self.way.may_be_out_of_reach() && !was_reached && !listening.on_loopback_only() {
            return Ok((port, Proof::OutOfReach));
        }
        Err(diagnosis::unreachable(self.way, self.session, port, &listening, error).into())
    }

    /// Has one more port proven, and returns how long to wait for it before the next.
    async fn ask_for_another(&mut self) -> Result<Duration, StageError> {
        if self.granted.len() == GRANTED {
            return Ok(Duration::MAX);
        }
        let asked = Instant::now();
        let Some(port) = self.next_granted().await? else {
            return Ok(Duration::MAX);
        };
        let mut prober = self.way.prober(self.session);
        self.proofs
            .spawn(async move { (port, prober.prove(port).await) });
        Ok(HEDGE + asked.elapsed() * 4)
    }

    /// The next port that the server grants; `None` when there are no more.
    async fn next_granted(&mut self) -> Result<Option<u16>, StageError> {
        for port in self.ports.by_ref() {
            match self.session.listen(port, self.way.local_port).await {
                Ok(()) => {
                    self.granted.push(port);
                    return Ok(Some(port));
                }
                Err(NotListening::Refused(Refusal::Disabled)) => {
                    return Err(diagnosis::forbidden(self.session));
                }
                Err(NotListening::Refused(refusal)) => self.refusals.add(port, refusal),
                Err(NotListening::Broken(error)) => return Err(error),
            }
        }
        Ok(None)
    }

    fn none_granted(&self) -> Unclaimed {
        if self.refusals.are_for_good() {
            return diagnosis::not_permitted(self.way, self.session).into();
        }
        lost(diagnosis::none_free(self.way, self.session, &self.refusals))
    }

    async fn release_all_but(&self, kept: Option<u16>) {
        for port in self.granted.iter().filter(|port| Some(**port) != kept) {
            self.session.give_back(*port, self.way.local_port).await;
        }
    }
}
