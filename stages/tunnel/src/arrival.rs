//! The proof that a connection from outside arrives in this very session.
//!
//! That a port accepts connections proves nothing: it may be a ghost's, another server's, or lead nowhere.

use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::config::Verify;
use crate::outputs::Verified;
use crate::ssh::{Arrival, Log};

/// A firewall that drops packets answers nothing at all.
pub(crate) const CONNECT: Duration = Duration::from_secs(5);
/// ssh reports an arrival within milliseconds of a connect, on a slow line within one round trip.
const REPORT: Duration = Duration::from_secs(2);
/// Once another visitor was reported, ours is not far.
const OURS: Duration = Duration::from_millis(300);
/// How long a visitor that is not our own nonce may hold up the wait for it.
const VISITOR: Duration = Duration::from_millis(500);

/// Where the proof is looked for.
#[derive(Clone, Debug)]
pub(crate) struct Prober {
    pub(crate) host: String,
    pub(crate) local_port: u16,
    pub(crate) verify: Verify,
    pub(crate) log: watch::Receiver<Log>,
    /// How long to wait for a connection.
    pub(crate) patience: Duration,
}

/// The way from outside into this session is not there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ArrivalError {
    #[error("no connection")]
    Unreachable(#[from] io::Error),
    #[error("somebody else answered")]
    Elsewhere,
}

/// What is known of the way to a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Proof {
    /// As good as it gets.
    Proven(Verified),
    /// Visitors arrive with another source port, and the local port is in use.
    OriginRewritten,
    /// This machine does not get to the address that pods use.
    Unreachable,
    /// Nobody asked for one.
    NotRequested,
}

impl Proof {
    pub(crate) fn verified(self) -> Verified {
        match self {
            Proof::Proven(verified) => verified,
            Proof::OriginRewritten | Proof::Unreachable | Proof::NotRequested => {
                Verified::Unverified
            }
        }
    }
}

impl Prober {
    /// Before the first `ready`: by the origin, else by a nonce, else it stays unknown; or by what the user asks for.
    pub(crate) async fn prove(&mut self, port: u16) -> Result<Proof, ArrivalError> {
        if self.verify == Verify::Tcp {
            probe_tcp(&self.host, port, self.patience).await?;
            return Ok(Proof::Proven(Verified::Tcp));
        }
        if self.verify != Verify::Nonce && self.probe_origin(port).await? {
            return Ok(Proof::Proven(Verified::Origin));
        }
        match probe_nonce(&self.host, port, self.local_port, self.patience).await? {
            true => Ok(Proof::Proven(Verified::Nonce)),
            false => Ok(Proof::OriginRewritten),
        }
    }

    /// While ready. Does not touch the local port: the master is at home there, or is just about to be.
    pub(crate) async fn recheck(&mut self, port: u16) -> Result<(), ArrivalError> {
        if self.verify == Verify::Tcp {
            probe_tcp(&self.host, port, self.patience).await?;
        } else {
            self.probe_origin(port).await?;
        }
        Ok(())
    }

    /// Whether ssh reports our source port; else it reports a visitor from another one: NAT on the way, or somebody else.
    async fn probe_origin(&mut self, port: u16) -> Result<bool, ArrivalError> {
        let before = self.log.borrow().arrived;
        let stream = probe_tcp(&self.host, port, self.patience).await?;
        let ours = Arrival {
            listen_port: port,
            origin_port: stream.local_addr()?.port(),
        };
        let any = |log: &Log| log.arrivals_since(before).any(|a| a.listen_port == port);
        let own = |log: &Log| log.arrivals_since(before).any(|a| *a == ours);
        drop(timeout(REPORT, self.log.wait_for(|log| any(log) || log.ended)).await);
        if !any(&self.log.borrow()) {
            return Err(ArrivalError::Elsewhere);
        }
        drop(timeout(OURS, self.log.wait_for(|log| own(log) || log.ended)).await);
        Ok(own(&self.log.borrow()))
    }
}

/// Has a nonce that is sent to the public side come out on the local port. False when the local port is in use.
pub(crate) async fn probe_nonce(
    host: &str,
    port: u16,
    local_port: u16,
    patience: Duration,
) -> Result<bool, ArrivalError> {
    let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, local_port)).await else {
        return Ok(false);
    };
    let mut word = [0; 16];
    getrandom::fill(&mut word).map_err(io::Error::other)?;
    let mut stream = probe_tcp(host, port, patience).await?;
    stream.write_all(&word).await?;
    match timeout(REPORT, wait_for_word(&listener, word)).await {
        Ok(()) => Ok(true),
        Err(_) => Err(ArrivalError::Elsewhere),
    }
}

pub(crate) async fn probe_tcp(host: &str, port: u16, patience: Duration) -> io::Result<TcpStream> {
    with_timeout(patience, TcpStream::connect((host, port))).await
}

/// What comes of it, or an error when nothing does in time.
pub(crate) async fn with_timeout<T, E: From<io::Error>>(
    patience: Duration,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    timeout(patience, work).await.unwrap_or_else(|_| {
        let silence = format!("no answer within {patience:?}");
        Err(io::Error::new(io::ErrorKind::TimedOut, silence).into())
    })
}

async fn wait_for_word(listener: &TcpListener, word: [u8; 16]) {
    loop {
        let Ok((mut visitor, _)) = listener.accept().await else {
            continue;
        };
        let mut received = [0; 16];
        if let Ok(Ok(_)) = timeout(VISITOR, visitor.read_exact(&mut received)).await
            && received == word
        {
            return;
        }
    }
}
