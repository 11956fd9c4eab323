//! A stand-in for a pod in the cluster: it finds the master as a task does, by what the master's config says.

use std::path::Path;
use std::time::{Duration, Instant};

use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use protocol::program::say;
use serde_json::Value;
use tokio::net::TcpStream;

use super::master;

/// A master's `/info` is some hundred bytes; whoever sends more is not a master.
const ANSWER: usize = 64 * 1024;

/// Why the pod did not reach its master.
#[derive(Debug, thiserror::Error)]
pub enum PodError {
    /// The config does not say where pods find the master.
    #[error(
        "the master's config has no resource_manager.{0}, so a pod cannot know where the master is"
    )]
    NoAddress(&'static str),
    /// The config file itself.
    #[error(transparent)]
    Config(#[from] master::MasterError),
    /// Nothing there.
    #[error("connecting to {0} failed")]
    Connect(String, #[source] std::io::Error),
    /// Something there that is no master.
    #[error("{0} does not speak HTTP as a master does")]
    Http(String, #[source] Box<dyn std::error::Error + Send + Sync>),
    /// A web server, but no master.
    #[error("{0}/info answered {1}")]
    Code(String, StatusCode),
    /// A master, but another one.
    #[error("{address} is the master of cluster {got}, not of {expected:?}")]
    WrongMaster {
        /// Where.
        address: String,
        /// Whom the config promised.
        expected: String,
        /// Whom the pod met.
        got: Value,
    },
    /// No answer.
    #[error("{0}/info did not answer within {1:?}")]
    Late(String, Duration),
}

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
    pub fn of(config: &Value) -> Result<Self, PodError> {
        let manager = &config["resource_manager"];
        let host = manager["determined_master_host"]
            .as_str()
            .filter(|host| !host.is_empty());
        let port = manager["determined_master_port"]
            .as_u64()
            .and_then(|port| u16::try_from(port).ok());
        Ok(Self {
            host: host
                .ok_or(PodError::NoAddress("determined_master_host"))?
                .to_owned(),
            port: port.ok_or(PodError::NoAddress("determined_master_port"))?,
            cluster_name: config["cluster_name"]
                .as_str()
                .unwrap_or_default()
                .to_owned(),
        })
    }

    /// `host:port`
    pub fn address(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

/// Asks the master who it is and says how long that took.
pub async fn call(master: &Master, deadline: Duration) -> Result<Duration, PodError> {
    let started = Instant::now();
    let info = tokio::time::timeout(deadline, info(master))
        .await
        .map_err(|_| PodError::Late(master.address(), deadline))??;
    if info["cluster_name"] != master.cluster_name.as_str() {
        return Err(PodError::WrongMaster {
            address: master.address(),
            expected: master.cluster_name.clone(),
            got: info["cluster_name"].clone(),
        });
    }
    Ok(started.elapsed())
}

async fn info(master: &Master) -> Result<Value, PodError> {
    let address = master.address();
    let foreign =
        |error: Box<dyn std::error::Error + Send + Sync>| PodError::Http(address.clone(), error);
    let stream = TcpStream::connect((master.host.as_str(), master.port))
        .await
        .map_err(|error| PodError::Connect(address.clone(), error))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| foreign(error.into()))?;
    let request = Request::get("/info")
        .header(header::HOST, &address)
        .body(Empty::<Bytes>::new())
        .map_err(|error| foreign(error.into()))?;
    let exchange = async {
        let response = sender
            .send_request(request)
            .await
            .map_err(|error| foreign(error.into()))?;
        if response.status() != StatusCode::OK {
            return Err(PodError::Code(address.clone(), response.status()));
        }
        let body = Limited::new(response.into_body(), ANSWER)
            .collect()
            .await
            .map_err(foreign)?;
        serde_json::from_slice(&body.to_bytes()).map_err(|error| foreign(error.into()))
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
pub async fn run(config_file: &Path, every: Duration) -> Result<(), PodError> {
    let mut told_to_end = std::pin::pin!(super::told_to_end());
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
