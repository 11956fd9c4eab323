//! A stand-in for `determined-master --config-file X`: it refuses what Determined refuses, listens, and says who it is.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use http::StatusCode;
use protocol::yaml::{self, Document};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::serve::{self, Body, serve};

/// The version that it claims: of the Determined whose rules it applies.
pub const VERSION: &str = "0.38.1";

const DEFAULT_PORT: u16 = 8080;

/// Why the master did not start.
#[derive(Debug, thiserror::Error)]
pub enum MasterError {
    /// No file, or no permission.
    #[error("reading the master's config {0} failed")]
    Read(PathBuf, #[source] io::Error),
    /// Not the YAML that Determined reads.
    #[error("the master's config {0} is not YAML: {1}")]
    Yaml(PathBuf, yaml::Error),
    /// Determined would not start with it.
    #[error("the master's config {0} is refused:\n{list}", list = .1.join("\n"))]
    Refused(PathBuf, Vec<String>),
    /// Mostly: another master runs.
    #[error("listening on port {0} failed: {1}")]
    Listen(u16, #[source] io::Error),
}

/// The config as plain data, unchecked.
pub fn read(config_file: &Path) -> Result<Value, MasterError> {
    let text = std::fs::read_to_string(config_file)
        .map_err(|error| MasterError::Read(config_file.to_owned(), error))?;
    let document =
        Document::parse(&text).map_err(|error| MasterError::Yaml(config_file.to_owned(), error))?;
    Ok(document.value())
}

/// Runs until SIGTERM or SIGINT.
pub async fn run(config_file: &Path) -> Result<(), MasterError> {
    let config = read(config_file)?;
    let mut violations: Vec<String> = config_emit::determined::violations(&config)
        .iter()
        .map(ToString::to_string)
        .collect();
    let port = port(&config).unwrap_or_else(|violation| {
        violations.push(violation);
        DEFAULT_PORT
    });
    if !violations.is_empty() {
        return Err(MasterError::Refused(config_file.to_owned(), violations));
    }
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .await
        .map_err(|error| MasterError::Listen(port, error))?;
    let told_to_end = super::told_to_end();
    let port = listener
        .local_addr()
        .map_or(port, |address: SocketAddr| address.port());
    protocol::program::say(&format!(
        "INFO accepting incoming connections on port {port}"
    ));
    let info = info(&config);
    let answers = serve(listener, move |request| {
        let response = answer(request.uri().path(), &info);
        async move { response }
    });
    tokio::select! {
        () = answers => {}
        () = told_to_end => protocol::program::say("INFO shutting down"),
    }
    Ok(())
}

fn port(config: &Value) -> Result<u16, String> {
    match &config["port"] {
        Value::Null => Ok(DEFAULT_PORT),
        port => port
            .as_u64()
            .and_then(|port| u16::try_from(port).ok())
            .ok_or_else(|| format!("port: {port} is not a port")),
    }
}

fn info(config: &Value) -> Value {
    json!({
        "cluster_id": "sandbox",
        "cluster_name": config["cluster_name"].as_str().unwrap_or_default(),
        "master_id": "sandbox",
        "version": VERSION,
    })
}

fn answer(path: &str, info: &Value) -> http::Response<Body> {
    match path {
        "/info" => serve::json(StatusCode::OK, info),
        "/health" => serve::json(StatusCode::OK, &json!({"status": "up"})),
        _ => serve::json(StatusCode::NOT_FOUND, &json!({"message": "Not Found"})),
    }
}
