//! A stand-in for a pod in the cluster: it finds the master as a task does, by the master's config.

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

use super::{master, shutdown_signal};

/// The most bytes of an answer. A master's `/info` has a few hundred.
const ANSWER: usize = 64 * 1024;

/// The master of the pod, and its address in the config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Master {
    /// `determined_master_host`
    pub host: String,
    /// `determined_master_port`
    pub port: u16,
    /// `cluster_name`, by which the pod recognizes its own master.
    pub cluster_name: String,
}

impl Master {
    /// From the config with which the master was started.
    pub fn from_config(config: &Value) -> Result<Self> {
        let manager = &config["resource_manager"];
        let missing = |field: &str| {
            format!(
                "the master's config has no resource_manager.{field}, so a pod cannot find the master"
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

/// Calls the master and returns how long the answer took.
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
        // The connection may close before the last bytes of the answer are read.
        _ = connection => exchange.await,
    }
}

/// The report of a pod that reached the master.
pub(crate) fn reached(master: &Master, took: Duration) -> String {
    let address = master.address();
    format!("reached the master at {address} in {} ms", took.as_millis())
}

/// Calls the master at an interval and reports on stderr, until a signal arrives.
pub async fn run(config_file: &Path, every: Duration) -> Result<()> {
    let mut shutdown_signal = shutdown_signal(&[SignalKind::terminate(), SignalKind::interrupt()])?;
    loop {
        // Read the config each time: a restarted master may have another address.
        let master = Master::from_config(&master::read(config_file)?)?;
        let called = call(&master, every.max(Duration::from_secs(5))).await;
        say(&called.map_or_else(|error| error.to_string(), |took| reached(&master, took)));
        tokio::select! {
            () = tokio::time::sleep(every) => {}
            () = &mut shutdown_signal => return Ok(()),
        }
    }
}
