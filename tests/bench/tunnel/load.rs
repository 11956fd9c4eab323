//! Streams and short visits through a port, and a master that serves them.

use std::io;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use support::tunnel::any_listener;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy, sink};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::report::median;

const VISITOR: Ipv4Addr = Ipv4Addr::LOCALHOST;
/// The time after which a visit counts as stalled.
const STALLED: Duration = Duration::from_secs(20);

/// Who closes a connection first. It determines whose last packet is still in flight when the next visitor connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HangsUp {
    Visitor,
    Master,
}

/// A master that sends each visitor the requested number of bytes.
pub(crate) struct Source {
    pub(crate) port: u16,
    _task: JoinSet<()>,
}

impl Source {
    pub(crate) async fn start() -> Source {
        let listener = any_listener().await;
        let port = listener.local_addr().expect("no address").port();
        let mut task = JoinSet::new();
        task.spawn(serve(listener));
        Source { port, _task: task }
    }
}

async fn serve(listener: TcpListener) {
    let mut visitors = JoinSet::new();
    while let Ok((mut visitor, _)) = listener.accept().await {
        while visitors.try_join_next().is_some() {}
        visitors.spawn(async move {
            let chunk = vec![0; 256 * 1024];
            let first = visitor.read_u8().await.unwrap_or(0);
            if first == b'P' {
                return refuse_login(visitor).await;
            }
            let visitor_hangs_up = first == 1;
            let mut left = visitor.read_u64().await.unwrap_or(0) as usize;
            while left > 0 {
                let part = &chunk[..left.min(chunk.len())];
                if visitor.write_all(part).await.is_err() {
                    return;
                }
                left -= part.len();
            }
            if visitor_hangs_up {
                drop(copy(&mut visitor, &mut sink()).await);
            }
        });
    }
}

/// The POST of a guard, without its first byte: it gets the answer of a master with passwords.
async fn refuse_login(mut guard: TcpStream) {
    let answer = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    if guard.write_all(answer).await.is_ok() {
        drop(copy(&mut guard, &mut sink()).await);
    }
}

async fn fetch(port: u16, bytes: u64, hangs_up: HangsUp) -> io::Result<u64> {
    let mut stream = TcpStream::connect((VISITOR, port)).await?;
    let mut request = vec![u8::from(hangs_up == HangsUp::Visitor)];
    request.extend(bytes.to_be_bytes());
    stream.write_all(&request).await?;
    copy(&mut stream.take(bytes), &mut sink()).await
}

/// Megabits per second, of several streams together.
pub(crate) async fn throughput(port: u16, streams: u64, bytes: u64) -> f64 {
    let from = Instant::now();
    let mut visitors = JoinSet::new();
    for _ in 0..streams {
        visitors.spawn(fetch(port, bytes / streams, HangsUp::Master));
    }
    let mut got = 0;
    while let Some(stream) = visitors.join_next().await {
        got += stream.expect("a visitor disconnected").expect("no stream");
    }
    assert_eq!(got, bytes / streams * streams, "bytes are missing");
    got as f64 * 8.0 / 1e6 / from.elapsed().as_secs_f64()
}

/// Visits that fetch one byte.
pub(crate) struct Visits {
    pub(crate) per_second: f64,
    /// Milliseconds.
    pub(crate) latency: f64,
}

/// Runs this many visitors in parallel, each with one visit after the other, for this long.
pub(crate) async fn visits(
    port: u16,
    hangs_up: HangsUp,
    side_by_side: usize,
    lasting: Duration,
) -> Visits {
    let from = Instant::now();
    let mut visitors = JoinSet::new();
    for _ in 0..side_by_side {
        visitors.spawn(async move {
            let mut took = Vec::new();
            while from.elapsed() < lasting {
                let visit = Instant::now();
                let fetched = timeout(STALLED, fetch(port, 1, hangs_up)).await;
                let fetched = fetched.expect("a visit stalled").expect("a visit failed");
                assert_eq!(fetched, 1);
                took.push(visit.elapsed().as_secs_f64() * 1000.0);
            }
            took
        });
    }
    let took = visitors.join_all().await.concat();
    Visits {
        per_second: took.len() as f64 / from.elapsed().as_secs_f64(),
        latency: median(&took),
    }
}
