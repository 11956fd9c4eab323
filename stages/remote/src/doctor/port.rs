//! The check of a master's port.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, TcpListener};

use protocol::{Check, Env, StageError};
use serde_json::Value;

use crate::input::CompiledInput;
use crate::{codes, up};

/// Whether the port is free. `None` for other kinds, and for an invalid port, which config-emit reports.
pub(super) fn check_master(
    kind: &str,
    body: &Value,
    input: &CompiledInput,
    env: &Env,
) -> Option<Check> {
    if kind != "master" {
        return None;
    }
    let name = body["name"].as_str().unwrap_or(kind);
    let port = port(&body["config_file"], env)?;
    let (id, title) = (
        format!("port.{name}"),
        format!("the port of {name} is free here"),
    );
    if up::check_temp_dir(&input.temp_dir(env)).is_err_and(|e| e.is(codes::IN_USE)) {
        let why = format!("{port} is in use by the running devcluster");
        return Some(Check::skipped(&id, &title, why));
    }
    let error = match TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)) {
        Ok(_) => return Some(Check::ok(&id, &title, port.to_string())),
        Err(error) => error,
    };
    let message = format!("{name} cannot listen on port {port}");
    let hint = match error.kind() {
        ErrorKind::AddrInUse => {
            "end the process that listens there, perhaps a master of an earlier run, or set another `port` in config_file"
        }
        _ => "set a `port` above 1023 in config_file",
    };
    let error = StageError::io(message, &error).hint(hint);
    Some(Check::failed(&id, &title, &error))
}

/// The port of a config, with Determined's defaults.
fn port(config: &Value, env: &Env) -> Option<u16> {
    match &config["port"] {
        Value::Null if config["security"]["tls"]["cert"].is_string() => Some(8443),
        Value::Null => Some(8080),
        Value::String(text) => env.expand(text).parse().ok(),
        other => u16::try_from(other.as_u64()?).ok(),
    }
    .filter(|port| *port > 0)
}
