//! A stand-in for a pod in the cluster: it finds the master as a task does, by what the master's config says.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use protocol::program::say;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::signal::unix::SignalKind;

use super::{master, told_to_end};

/// A master's `/info` is some hundred bytes; whoever sends more is not a master.
const ANSWER: usize = 64 * 1024;

/// Which master the pod belongs to, and where the config says that it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Master {
    /// `determined_master_host`
    pub host: String,
    /// `determined_master_port`
    pub port: u16,
    /// `cluster_name`: by it the pod knows its own master from any other.
    pub cluster_name: String,
}

impl Master {
    /// Reads the config that the master was started with.
    pub fn of(config: &Value) -> Result<Self> {
        let manager = &config["resource_manager"];
        let missing = |field: &str| {
            format!(
                "the master's config has no resource_manager.{field}, so a pod cannot know where the master is"
            )
        };
        let host = manager["determined_master_host"].as_str();
        let host = host.filter(|host| !host.is_empty());
        let port = manager["determined_master_port"].as_u64();
        let port = port.and_then(|port| u16::try_from(port).ok());
        Ok(Self {
            host: host
                .with_context(|| missing("determined_master_host"))?
                .to_owned(),
            port: port.with_context(|| missing("determined_master_port"))?,
            cluster_name: config["cluster_name"]
                .as_str()
                .unwrap_or_default()
                .to_owned(),
        })
    }

    /// `host:port`
    pub fn address(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }
}

/// Asks the master who it is and says how long that took.
pub async fn call(master: &Master, deadline: Duration) -> Result<Duration> {
    let started = Instant::now();
    let address = master.address();
    let info = tokio::time::timeout(deadline, info(master, &address))
        .await
        .with_context(|| format!("{address}/info did not answer within {deadline:?}"))??;
    let (got, expected) = (&info["cluster_name"], &master.cluster_name);
    ensure!(
        *got == **expected,
        "{address} is the master of cluster {got}, not of {expected:?}"
    );
    Ok(started.elapsed())
}

async fn info(master: &Master, address: &str) -> Result<Value> {
    let stream = TcpStream::connect((master.host.as_str(), master.port))
        .await
        .with_context(|| format!("connecting to {address} failed"))?;
    let (code, body) = get_info(stream, address)
        .await
        .with_context(|| format!("{address} does not speak HTTP as a master does"))?;
    ensure!(code == StatusCode::OK, "{address}/info answered {code}");
    serde_json::from_slice(&body)
        .with_context(|| format!("{address} does not speak HTTP as a master does"))
}

async fn get_info(stream: TcpStream, address: &str) -> Result<(StatusCode, Bytes)> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get("/info")
        .header(header::HOST, address)
        .body(Empty::<Bytes>::new())?;
    let exchange = async {
        let (head, body) = sender.send_request(request).await?.into_parts();
        let body = Limited::new(body, ANSWER).collect().await;
        let body = body.map_err(anyhow::Error::from_boxed)?;
        Ok((head.status, body.to_bytes()))
    };
    tokio::pin!(exchange);
    tokio::select! {
        answer = &mut exchange => answer,
        // The connection may be over before the last bytes of the answer are read.
        _ = connection => exchange.await,
    }
}

/// What a pod says when it got through.
pub(crate) fn reached(master: &Master, took: Duration) -> String {
    let address = master.address();
    format!("reached the master at {address} in {} ms", took.as_millis())
}

/// Calls the master every so often and says on stderr how it went, until it is told to end.
pub async fn run(config_file: &Path, every: Duration) -> Result<()> {
    let mut told_to_end = told_to_end(&[SignalKind::terminate(), SignalKind::interrupt()])?;
    loop {
        // Read each time: a restarted master may be elsewhere, and its next pod would know.
        let master = Master::of(&master::read(config_file)?)?;
        let called = call(&master, every.max(Duration::from_secs(5))).await;
        say(&called.map_or_else(|error| error.to_string(), |took| reached(&master, took)));
        tokio::select! {
            () = tokio::time::sleep(every) => {}
            () = &mut told_to_end => return Ok(()),
        }
    }
}
