//! How a port of the server becomes ours: the server's own bind says whether it is free, a visitor from outside whether it
//! leads here.

use std::time::{Duration, Instant};

use protocol::StageError;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::arrival::{NotArrived, Prober};
use crate::config::{Config, Verified, Verify};
use crate::diagnosis::{self, Refusals};
use crate::port_range::PortRange;
use crate::ssh::{NotListening, Refusal, Resolved, Session};

/// Ports that were granted and lead elsewhere. More of them would tell nothing new.
const GRANTED: usize = 3;
/// A granted port is proven within a few round trips. After that the next one is asked for too, and the first to be
/// proven wins: a server may well grant a port on `[::]` alone, while somebody else has it on IPv4.
const HEDGE: Duration = Duration::from_millis(30);

/// The way from a pod to this machine, but for the port.
#[derive(Clone, Debug)]
pub(crate) struct Way {
    pub(crate) public_host: String,
    pub(crate) local_port: u16,
    pub(crate) range: PortRange,
    verify: Verify,
}

/// A port that is ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Claimed {
    pub(crate) port: u16,
    pub(crate) verified: Verified,
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
    pub(crate) fn new(config: &Config, resolved: &Resolved) -> Way {
        let public_host = config.public_host.clone();
        Way {
            public_host: public_host.unwrap_or_else(|| resolved.host.clone()),
            local_port: config.local_port,
            range: config.remote_port_range,
            verify: config.verify,
        }
    }

    pub(crate) fn prober(&self, session: &Session) -> Prober {
        Prober {
            host: self.public_host.clone(),
            local_port: self.local_port,
            verify: self.verify,
            log: session.log(),
        }
    }

    pub(crate) fn is_verified(&self) -> bool {
        self.verify != Verify::Off
    }

    /// Claims the first of these ports that the server grants and that leads here.
    pub(crate) async fn claim(
        &self,
        session: &Session,
        ports: Vec<u16>,
    ) -> Result<Claimed, Unclaimed> {
        let mut claim = Claim::new(self, session, ports);
        if !self.is_verified() {
            return claim.first_granted().await;
        }
        let mut elsewhere = None;
        loop {
            let patience = claim.ask_for_another().await?;
            let Ok(proof) = timeout(patience, claim.proofs.join_next()).await else {
                continue;
            };
            match proof {
                Some(Ok((port, Ok(verified)))) => {
                    claim.release_all_but(Some(port)).await;
                    return Ok(Claimed { port, verified });
                }
                Some(Ok((port, Err(NotArrived::Elsewhere)))) => elsewhere = Some(port),
                Some(Ok((port, Err(NotArrived::Unreachable(error))))) => {
                    return Err(diagnosis::unreachable(self, session, port, &error)
                        .await
                        .into());
                }
                Some(Err(e)) => {
                    return Err(StageError::internal(format!("a proof broke off: {e}")).into());
                }
                None => {
                    claim.release_all_but(None).await;
                    return Err(match elsewhere {
                        Some(port) => lost(diagnosis::elsewhere(self, port)),
                        None => claim.none_granted(),
                    });
                }
            }
        }
    }

    /// Whether the proof is as good as the user wants it.
    pub(crate) fn accept(&self, claimed: Claimed) -> Result<Claimed, StageError> {
        let good_enough = match self.verify {
            Verify::Require => claimed.verified != Verified::Unverified,
            Verify::Origin => claimed.verified == Verified::Origin,
            Verify::Nonce => claimed.verified == Verified::Nonce,
            Verify::Auto | Verify::Tcp | Verify::Off => true,
        };
        if good_enough {
            Ok(claimed)
        } else {
            Err(diagnosis::unverified(self, claimed.port, self.verify))
        }
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
    proofs: JoinSet<(u16, Result<Verified, NotArrived>)>,
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

    async fn first_granted(&mut self) -> Result<Claimed, Unclaimed> {
        match self.next_granted().await? {
            Some(port) => Ok(Claimed {
                port,
                verified: Verified::Unverified,
            }),
            None => Err(self.none_granted()),
        }
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
        self.granted.push(port);
        let mut prober = self.way.prober(self.session);
        self.proofs
            .spawn(async move { (port, prober.prove(port).await) });
        Ok(HEDGE + asked.elapsed() * 4)
    }

    /// The next port that the server grants; `None` when there are no more.
    async fn next_granted(&mut self) -> Result<Option<u16>, StageError> {
        for port in self.ports.by_ref() {
            match self.session.listen(port).await {
                Ok(()) => return Ok(Some(port)),
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
            self.session.give_back(*port).await;
        }
    }
}
