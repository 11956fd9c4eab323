//! A stand-in for `determined-master --config-file X`: it refuses configs as Determined does, listens, and reports its
//! cluster name.

use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::{Context, Result, anyhow, ensure};
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use protocol::program::say;
use protocol::yaml::Document;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::signal::unix::SignalKind;

use super::serve::{self, Body, serve};
use super::shutdown_signal;

/// The version that it reports: the Determined release whose rules it applies.
const VERSION: &str = "0.38.1";

const DEFAULT_PORT: u16 = 8080;

const LOGIN: &str = "/api/v1/auth/login";

/// Reads the config without checks.
pub fn read(config_file: &Path) -> Result<Value> {
    let shown = config_file.display();
    let text = std::fs::read_to_string(config_file)
        .with_context(|| format!("reading the master's config {shown} failed"))?;
    let document = Document::parse(&text)
        .map_err(|error| anyhow!("the master's config {shown} is not YAML: {error}"))?;
    Ok(document.value())
}

/// Runs until SIGTERM or SIGINT.
pub async fn run(config_file: &Path) -> Result<()> {
    let config = read(config_file)?;
    let violations = config_emit::determined::violations(&config);
    let mut violations: Vec<String> = violations.iter().map(ToString::to_string).collect();
    let port = port(&config).unwrap_or_else(|violation| {
        violations.push(violation);
        DEFAULT_PORT
    });
    ensure!(
        violations.is_empty(),
        "the master's config {} is refused:\n{}",
        config_file.display(),
        violations.join("\n")
    );
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .await
        .map_err(|error| anyhow!("listening on port {port} failed: {error}"))?;
    let shutdown_signal = shutdown_signal(&[SignalKind::terminate(), SignalKind::interrupt()])?;
    let port = listener.local_addr().map_or(port, |it| it.port());
    say(&format!(
        "INFO accepting incoming connections on port {port}"
    ));
    let info = json!({
        "cluster_id": "sandbox",
        "cluster_name": config["cluster_name"].as_str().unwrap_or_default(),
        "master_id": "sandbox",
        "version": VERSION,
    });
    let password = &config["security"]["initial_user_password"];
    let password = password.as_str().unwrap_or_default().to_owned();
    let answers = serve(listener, move |request| {
        let (info, password) = (info.clone(), password.clone());
        async move {
            match request.uri().path() {
                LOGIN => log_in(request, &password).await,
                path => answer(path, &info),
            }
        }
    });
    tokio::select! {
        () = answers => {}
        () = shutdown_signal => say("INFO shutting down"),
    }
    Ok(())
}

fn port(config: &Value) -> Result<u16, String> {
    let port = match &config["port"] {
        Value::Null => return Ok(DEFAULT_PORT),
        port => port,
    };
    let number = port.as_u64().and_then(|port| u16::try_from(port).ok());
    number.ok_or_else(|| format!("port: {port} is not a port"))
}

fn answer(path: &str, info: &Value) -> http::Response<Body> {
    match path {
        "/info" => serve::json(StatusCode::OK, info),
        "/health" => serve::json(StatusCode::OK, &json!({"status": "up"})),
        _ => serve::json(StatusCode::NOT_FOUND, &json!({"message": "Not Found"})),
    }
}

/// All users have the initial password.
async fn log_in(request: Request<Incoming>, password: &str) -> http::Response<Body> {
    let body = request.into_body().collect().await;
    let body = body.map(|body| body.to_bytes()).unwrap_or_default();
    let login: Value = serde_json::from_slice(&body).unwrap_or_default();
    match login["password"] == password {
        true => serve::json(StatusCode::OK, &json!({"token": "sandbox"})),
        false => {
            let error = json!({"error": {"code": 401, "error": "invalid credentials"}});
            serve::json(StatusCode::UNAUTHORIZED, &error)
        }
    }
}
