//! Claims a port of the server: the server's bind shows whether it is free, a connection from outside whether it leads
//! here.

use std::time::{Duration, Instant};

use protocol::StageError;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::arrival::{ArrivalError, Proof};
use crate::config::Verify;
use crate::errors::{self, RefusedPorts};
use crate::forward::{BoundPort, Forward, ForwardSpec};
use crate::outputs::Verified;
use crate::ssh::{ListenError, Refusal, SshSession};

/// Give up after this many granted ports that lead elsewhere: more would show nothing new.
const GRANTED: usize = 3;
/// A granted port is proven within a few round trips, or this on a busy machine. After that the next port is requested too, and
/// the first proven one wins: a server may grant a port on `[::]` alone while another program has it on IPv4.
const HEDGE: Duration = Duration::from_millis(300);

/// Why no port was claimed.
#[derive(Debug)]
pub(crate) struct ClaimError {
    pub(crate) error: StageError,
    /// Other programs have these ports, so other ports may work.
    pub(crate) port_conflict: bool,
}

impl From<StageError> for ClaimError {
    fn from(error: StageError) -> Self {
        ClaimError {
            error,
            port_conflict: false,
        }
    }
}

/// Claims the first of these ports that the server grants and that leads here.
async fn claim(
    spec: &ForwardSpec,
    session: &SshSession,
    ports: Vec<u16>,
) -> Result<BoundPort, ClaimError> {
    let mut claim = Claim {
        spec,
        session,
        ports: ports.into_iter(),
        refusals: RefusedPorts::default(),
        granted: Vec::new(),
        proofs: JoinSet::new(),
    };
    let (port, proof) = match spec.is_verified() {
        true => claim.first_proven().await?,
        false => {
            let granted = claim.next_granted().await?;
            let port = granted.ok_or_else(|| claim.none_granted())?;
            (port, Proof::NotRequested)
        }
    };
    claim.release_all_but(Some(port)).await;
    Ok(BoundPort { port, proof })
}

impl Forward {
    /// Claims one of these ports, with the proof that the config asks for. A port that we claim again keeps its earlier
    /// proof, although the master may now be in the way of a new one: changed outputs would restart the master.
    pub(crate) async fn claim(
        &self,
        session: &SshSession,
        ports: Vec<u16>,
    ) -> Result<BoundPort, ClaimError> {
        let bound = claim(&self.spec, session, ports).await?;
        match self.bound {
            Some(before) if before.port == bound.port => Ok(before),
            _ => Ok(accept(&self.spec, bound)?),
        }
    }
}

/// Claims any port of the range.
pub(crate) async fn claim_any(
    spec: &ForwardSpec,
    session: &SshSession,
) -> Result<BoundPort, StageError> {
    let claimed = claim(spec, session, spec.shuffled_ports(None)).await;
    claimed.map_err(|e| e.error)
}

/// Whether the proof is the one that the config asks for.
pub(crate) fn accept(spec: &ForwardSpec, bound: BoundPort) -> Result<BoundPort, StageError> {
    match (spec.verify, bound.proof.verified()) {
        (Verify::Require, Verified::Unverified) => {}
        (Verify::Origin, verified) if verified != Verified::Origin => {}
        (Verify::Nonce, verified) if verified != Verified::Nonce => {}
        _ => return Ok(bound),
    }
    Err(errors::unverified(spec, bound.port))
}

fn lost(error: StageError) -> ClaimError {
    ClaimError {
        error,
        port_conflict: true,
    }
}

/// A claim in progress.
struct Claim<'a> {
    spec: &'a ForwardSpec,
    session: &'a SshSession,
    ports: std::vec::IntoIter<u16>,
    refusals: RefusedPorts,
    granted: Vec<u16>,
    proofs: JoinSet<(u16, Result<Proof, ArrivalError>)>,
}

impl Claim<'_> {
    async fn first_proven(&mut self) -> Result<(u16, Proof), ClaimError> {
        let mut elsewhere = None;
        loop {
            let patience = self.probe_next().await?;
            let Ok(proof) = timeout(patience, self.proofs.join_next()).await else {
                continue;
            };
            match proof {
                Some(Ok((port, Ok(proof)))) => return Ok((port, proof)),
                Some(Ok((port, Err(ArrivalError::Elsewhere)))) => elsewhere = Some(port),
                Some(Ok((port, Err(ArrivalError::Unreachable(error))))) => {
                    return self.handle_unreachable(port, &error).await;
                }
                Some(Err(e)) => {
                    return Err(StageError::internal(format!("a proof failed: {e}")).into());
                }
                None => {
                    let error = match elsewhere {
                        Some(port) => lost(errors::elsewhere(self.spec, self.session, port).await),
                        None => self.none_granted(),
                    };
                    self.release_all_but(None).await;
                    return Err(error);
                }
            }
        }
    }

    async fn handle_unreachable(
        &self,
        port: u16,
        error: &std::io::Error,
    ) -> Result<(u16, Proof), ClaimError> {
        let listening = self.session.listening(port).await;
        // A refused connection did reach the host.
        let was_reached = error.kind() == std::io::ErrorKind::ConnectionRefused;
        if self.spec.may_be_unreachable() && !was_reached && !listening.on_loopback_only() {
            return Ok((port, Proof::Unreachable));
        }
        Err(errors::unreachable(self.spec, self.session, port, &listening, error).into())
    }

    /// Starts the proof of one more port, and returns how long to wait for it before the next.
    async fn probe_next(&mut self) -> Result<Duration, StageError> {
        if self.granted.len() == GRANTED {
            return Ok(Duration::MAX);
        }
        let asked = Instant::now();
        let Some(port) = self.next_granted().await? else {
            return Ok(Duration::MAX);
        };
        let mut prober = self.spec.prober(self.session);
        self.proofs
            .spawn(async move { (port, prober.prove(port).await) });
        Ok(HEDGE + asked.elapsed() * 4)
    }

    /// Requests ports until the server grants one; `None` when no more are left.
    async fn next_granted(&mut self) -> Result<Option<u16>, StageError> {
        for port in self.ports.by_ref() {
            match self.session.listen(port, &self.spec.local_end()).await {
                Ok(()) => {
                    self.granted.push(port);
                    return Ok(Some(port));
                }
                Err(ListenError::Refused(Refusal::Disabled)) => {
                    return Err(errors::forbidden(self.session));
                }
                Err(ListenError::Refused(refusal)) => self.refusals.add(port, refusal),
                Err(ListenError::Failed(error)) => return Err(error),
            }
        }
        Ok(None)
    }

    fn none_granted(&self) -> ClaimError {
        if self.refusals.are_permanent() {
            return errors::not_permitted(self.spec, self.session).into();
        }
        lost(errors::none_free(self.spec, self.session, &self.refusals))
    }

    async fn release_all_but(&self, kept: Option<u16>) {
        for port in self.granted.iter().filter(|port| Some(**port) != kept) {
            self.session.stop_listening(*port).await;
        }
    }
}
