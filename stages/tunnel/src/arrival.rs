//! Proves that a connection from outside arrives in this ssh session.
//!
//! A port that accepts connections proves nothing: it may belong to a ghost or another server, or lead nowhere.

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::config::Verify;
use crate::guard::{Guard, Word};
use crate::outputs::Verified;
use crate::ssh::{Arrival, Log};

/// Time limit of a connection: a firewall that drops packets sends no answer.
pub(crate) const CONNECT: Duration = Duration::from_secs(5);
/// ssh reports an arrival within milliseconds of the connect, on a slow line within one round trip.
const REPORT: Duration = Duration::from_secs(2);
/// After another visitor's arrival is reported, ours follows within this time.
const OURS: Duration = Duration::from_millis(300);
/// How long a visitor without our nonce may delay the wait for it.
const VISITOR: Duration = Duration::from_millis(500);

/// Proves the arrival at one port.
#[derive(Clone, Debug)]
pub(crate) struct Prober {
    pub(crate) host: String,
    pub(crate) local_port: u16,
    /// Receives the visitors of the port.
    pub(crate) guard: Option<Arc<Guard>>,
    pub(crate) verify: Verify,
    pub(crate) log: watch::Receiver<Log>,
    /// Time limit of a connection.
    pub(crate) patience: Duration,
}

/// The port does not lead into this session.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ArrivalError {
    #[error("no connection")]
    Unreachable(#[from] io::Error),
    #[error("another program accepted the connection")]
    Elsewhere,
}

/// The result of a proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Proof {
    /// The arrival is proven.
    Proven(Verified),
    /// Visitors arrive from another source port, and the local port is in use.
    OriginRewritten,
    /// This machine does not reach the address that pods use.
    Unreachable,
    /// The config asks for no proof.
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
    /// Proves the arrival before the first `ready`: by the source port, else by a nonce; or as the config asks.
    pub(crate) async fn prove(&mut self, port: u16) -> Result<Proof, ArrivalError> {
        if self.verify == Verify::Tcp {
            probe_tcp(&self.host, port, self.patience).await?;
            return Ok(Proof::Proven(Verified::Tcp));
        }
        if self.verify != Verify::Nonce && self.probe_origin(port).await? {
            return Ok(Proof::Proven(Verified::Origin));
        }
        let has_arrived = match &self.guard {
            Some(guard) => {
                let word = random_word()?;
                let arrival = guard.expect(word);
                let arrived = async { drop(arrival.await) };
                send_word(&self.host, port, word, self.patience, arrived).await?;
                true
            }
            None => probe_nonce(&self.host, port, self.local_port, self.patience).await?,
        };
        match has_arrived {
            true => Ok(Proof::Proven(Verified::Nonce)),
            false => Ok(Proof::OriginRewritten),
        }
    }

    /// Proves the arrival again while ready. It leaves the local port alone: the master listens there, or is about to.
    pub(crate) async fn recheck(&mut self, port: u16) -> Result<(), ArrivalError> {
        if self.verify == Verify::Tcp {
            probe_tcp(&self.host, port, self.patience).await?;
        } else {
            self.probe_origin(port).await?;
        }
        Ok(())
    }

    /// Whether ssh reports our source port. If it reports another, NAT rewrote it, or the visitor is another one.
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

/// Whether a nonce sent to the public port arrives at the local port. Returns false if the local port is in use.
pub(crate) async fn probe_nonce(
    host: &str,
    port: u16,
    local_port: u16,
    patience: Duration,
) -> Result<bool, ArrivalError> {
    let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, local_port)).await else {
        return Ok(false);
    };
    let word = random_word()?;
    let arrived = wait_for_word(&listener, word);
    send_word(host, port, word, patience, arrived).await?;
    Ok(true)
}

fn random_word() -> io::Result<Word> {
    let mut word = Word::default();
    getrandom::fill(&mut word).map_err(io::Error::other)?;
    Ok(word)
}

/// Sends a word to the public port, and waits until it has arrived.
async fn send_word(
    host: &str,
    port: u16,
    word: Word,
    patience: Duration,
    arrived: impl Future<Output = ()>,
) -> Result<(), ArrivalError> {
    let mut stream = probe_tcp(host, port, patience).await?;
    stream.write_all(&word).await?;
    let arrived = timeout(REPORT, arrived).await;
    arrived.map_err(|_| ArrivalError::Elsewhere)
}

pub(crate) async fn probe_tcp(host: &str, port: u16, patience: Duration) -> io::Result<TcpStream> {
    with_timeout(patience, TcpStream::connect((host, port))).await
}

/// Fails with `TimedOut` if the work takes longer.
pub(crate) async fn with_timeout<T, E: From<io::Error>>(
    patience: Duration,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    timeout(patience, work).await.unwrap_or_else(|_| {
        let silence = format!("no answer within {patience:?}");
        Err(io::Error::new(io::ErrorKind::TimedOut, silence).into())
    })
}

async fn wait_for_word(listener: &TcpListener, word: Word) {
    loop {
        let Ok((mut visitor, _)) = listener.accept().await else {
            continue;
        };
        let mut received = Word::default();
        if let Ok(Ok(_)) = timeout(VISITOR, visitor.read_exact(&mut received)).await
            && received == word
        {
            return;
        }
    }
}
