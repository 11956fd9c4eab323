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

use crate::choices::Verify;
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
pub(crate) enum NotArrived {
    #[error("no connection")]
    Unreachable(#[source] io::Error),
    #[error("somebody else answered")]
    Elsewhere,
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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    /// ssh reported our source port.
    Ours,
    /// ssh reported a visitor, from another source port: NAT on the way, or somebody else.
    Another,
}

impl Prober {
    /// Before the first `ready`: by the origin, else by a nonce, else it stays unknown; or by what the user asks for.
    pub(crate) async fn prove(&mut self, port: u16) -> Result<Proof, NotArrived> {
        match self.verify {
            Verify::Tcp => {
                let knocked = self.knock(port).await;
                return knocked.map(|()| Proof::Seen(Verified::Tcp));
            }
            Verify::Nonce => return self.nonce(port).await,
            _ => {}
        }
        match self.visit(port).await? {
            Seen::Ours => Ok(Proof::Seen(Verified::Origin)),
            Seen::Another => self.nonce(port).await,
        }
    }

    /// While ready. Does not touch the local port: the master is at home there, or is just about to be.
    pub(crate) async fn prove_again(&mut self, port: u16) -> Result<(), NotArrived> {
        match self.verify {
            Verify::Tcp => self.knock(port).await,
            _ => self.visit(port).await.map(drop),
        }
    }

    async fn knock(&self, port: u16) -> Result<(), NotArrived> {
        self.connect(port).await.map(drop)
    }

    async fn connect(&self, port: u16) -> Result<TcpStream, NotArrived> {
        let connected = connect(&self.host, port, self.patience).await;
        connected.map_err(NotArrived::Unreachable)
    }

    async fn visit(&mut self, port: u16) -> Result<Seen, NotArrived> {
        let before = self.log.borrow().arrivals_so_far();
        let stream = self.connect(port).await?;
        let origin_port = stream.local_addr().map_err(NotArrived::Unreachable)?.port();
        let ours = Arrival {
            listen_port: port,
            origin_port,
        };
        let any = |log: &Log| log.arrivals_since(before).any(|a| a.listen_port == port);
        let own = |log: &Log| log.arrivals_since(before).any(|a| *a == ours);
        drop(timeout(REPORT, self.log.wait_for(|log| any(log) || log.ended)).await);
        if !any(&self.log.borrow()) {
            return Err(NotArrived::Elsewhere);
        }
        drop(timeout(OURS, self.log.wait_for(|log| own(log) || log.ended)).await);
        Ok(if own(&self.log.borrow()) {
            Seen::Ours
        } else {
            Seen::Another
        })
    }

    async fn nonce(&self, port: u16) -> Result<Proof, NotArrived> {
        let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, self.local_port)).await else {
            return Ok(Proof::Changed);
        };
        let mut word = [0; 16];
        getrandom::fill(&mut word).map_err(|e| NotArrived::Unreachable(io::Error::other(e)))?;
        let mut stream = self.connect(port).await?;
        stream
            .write_all(&word)
            .await
            .map_err(NotArrived::Unreachable)?;
        let arrived = timeout(REPORT, wait_for_word(&listener, word))
            .await
            .is_ok();
        if arrived {
            Ok(Proof::Seen(Verified::Nonce))
        } else {
            Err(NotArrived::Elsewhere)
        }
    }
}

/// Whether a nonce sent to the public side comes out on the local port; `None` when the local port is in use. For a process
/// that does not hold the session.
pub(crate) async fn nonce_from_afar(
    host: &str,
    port: u16,
    local_port: u16,
) -> Option<Result<(), NotArrived>> {
    let prober = Prober {
        host: host.to_owned(),
        local_port,
        verify: Verify::Auto,
        log: watch::Sender::new(Log::default()).subscribe(),
        patience: CONNECT,
    };
    match prober.nonce(port).await {
        Ok(Proof::Changed) => None,
        result => Some(result.map(drop)),
    }
}

pub(crate) async fn connect(host: &str, port: u16, patience: Duration) -> io::Result<TcpStream> {
    match timeout(patience, TcpStream::connect((host, port))).await {
        Ok(result) => result,
        Err(_) => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("no answer within {patience:?}"),
        )),
    }
}

async fn wait_for_word(listener: &TcpListener, word: [u8; 16]) {
    loop {
        let Ok((mut visitor, _)) = listener.accept().await else {
            continue;
        };
        let mut heard = [0; 16];
        if let Ok(Ok(_)) = timeout(VISITOR, visitor.read_exact(&mut heard)).await
            && heard == word
        {
            return;
        }
    }
}
