//! Visitors of a tunnel's port, and the master that they come to.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::tunnel::any_listener;

/// A program on this machine that gives back what it is sent, until it is dropped.
#[derive(Debug)]
pub struct Echo {
    port: u16,
    _task: JoinSet<()>,
}

impl Echo {
    pub async fn start() -> Echo {
        let listener = any_listener().await;
        let port = listener.local_addr().expect("no address").port();
        let mut task = JoinSet::new();
        task.spawn(echo(listener));
        Echo { port, _task: task }
    }

    pub fn port(&self) -> u16 {
        self.port
    }
}

async fn echo(listener: TcpListener) {
    let mut visitors = JoinSet::new();
    while let Ok((mut visitor, _)) = listener.accept().await {
        while visitors.try_join_next().is_some() {}
        visitors.spawn(async move {
            let (mut read, mut write) = visitor.split();
            drop(tokio::io::copy(&mut read, &mut write).await);
        });
    }
}

/// One connection, and one byte there and back.
pub async fn a_byte_through(host: Ipv4Addr, port: u16) -> io::Result<()> {
    let mut stream = TcpStream::connect(SocketAddr::from((host, port))).await?;
    stream.write_all(b"x").await?;
    let mut byte = [0];
    stream.read_exact(&mut byte).await.map(drop)
}

/// Tries until it succeeds, and returns how long that took; none within this time.
pub async fn first_byte_through(host: Ipv4Addr, port: u16, within: Duration) -> Option<Duration> {
    let from = Instant::now();
    let patience = Duration::from_millis(300);
    while !matches!(
        timeout(patience, a_byte_through(host, port)).await,
        Ok(Ok(()))
    ) {
        if from.elapsed() > within {
            return None;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Some(from.elapsed())
}
