//! A relay between a stage and its server: a long line, or one that goes dead without an error.

use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// A relay on a loopback port.
#[derive(Debug)]
pub struct Relay {
    port: u16,
    cuts: watch::Sender<u64>,
    parted: watch::Sender<bool>,
    _tasks: JoinSet<()>,
}

impl Relay {
    /// Leads to a port of this machine, with this delay in each direction.
    pub async fn start(to: u16, delay: Duration) -> Relay {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .expect("no port at all is free");
        let port = listener.local_addr().expect("no address").port();
        let cuts = watch::Sender::new(0);
        let parted = watch::Sender::new(false);
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(listener, to, delay, cuts.clone(), parted.clone()));
        Relay {
            port,
            cuts,
            parted,
            _tasks: tasks,
        }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Every current connection goes dead, and neither end gets an error: as when a laptop returns with another
    /// address. New ones are served.
    pub fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Nothing passes, on connections old and new, until it is reopened; neither end gets an error: as in a partitioned
    /// network, which delivers later what it could not.
    pub fn part(&self, parted: bool) {
        self.parted.send_replace(parted);
    }
}

/// Returns while it is not parted.
async fn whole(parted: &mut watch::Receiver<bool>) {
    drop(parted.wait_for(|parted| !*parted).await);
}

async fn serve(
    listener: TcpListener,
    to: u16,
    delay: Duration,
    cuts: watch::Sender<u64>,
    parted: watch::Sender<bool>,
) {
    let mut pairs = JoinSet::new();
    while let Ok((near, _)) = listener.accept().await {
        let cut = cuts.subscribe();
        let mut parted = parted.subscribe();
        pairs.spawn(async move {
            whole(&mut parted).await;
            let Ok(far) = TcpStream::connect((Ipv4Addr::LOCALHOST, to)).await else {
                return;
            };
            for end in [&near, &far] {
                end.set_nodelay(true).expect("no TCP_NODELAY");
            }
            let (near, far) = (near.into_split(), far.into_split());
            let mut directions = JoinSet::new();
            directions.spawn(pass(near.0, far.1, delay, cut.clone(), parted.clone()));
            directions.spawn(pass(far.0, near.1, delay, cut.clone(), parted.clone()));
            while directions.join_next().await.is_some() {}
        });
    }
}

async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    delay: Duration,
    mut cut: watch::Receiver<u64>,
    mut parted: watch::Receiver<bool>,
) {
    let (sender, mut chunks) = mpsc::channel::<(Instant, Vec<u8>)>(1024);
    let read = async move {
        loop {
            let mut chunk = vec![0; 64 * 1024];
            match from.read(&mut chunk).await {
                Ok(count) if count > 0 => chunk.truncate(count),
                _ => return,
            }
            if sender.send((Instant::now() + delay, chunk)).await.is_err() {
                return;
            }
        }
    };
    let write = async {
        while let Some((due, chunk)) = chunks.recv().await {
            if !delay.is_zero() {
                sleep_until(due).await;
            }
            whole(&mut parted).await;
            if to.write_all(&chunk).await.is_err() {
                return;
            }
        }
        drop(to.shutdown().await);
    };
    let both = async { tokio::join!(read, write) };
    tokio::select! {
        _ = both => {}
        // The halves stay open, and are not read.
        Ok(()) = cut.changed() => std::future::pending().await,
    }
}
