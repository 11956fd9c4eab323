//! Examines what listens on a local port: whether Determined's built-in users can log in without a password.

use std::net::Ipv4Addr;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::State;
use super::http::{Local, Request};
use crate::ssh::Listeners;

/// The users that every Determined master has.
const USERS: [&str; 2] = ["admin", "determined"];
/// A login takes a master about a millisecond, on a busy machine more.
const LOGIN: Duration = Duration::from_secs(5);

/// What an examined program keeps: a connection on which nothing is sent, and the listening sockets.
pub(super) type Kept = (TcpStream, Listeners);

/// Nothing is kept unless the result holds as long as the program lives.
pub(super) async fn examine(port: u16) -> (State, Option<Kept>) {
    let listeners = Listeners::local(port);
    let address = (Ipv4Addr::LOCALHOST, port);
    let idle = match TcpStream::connect(address).await {
        Ok(idle) => idle,
        Err(error) => return (refused(error), None),
    };
    let state = match log_in_as_each(port).await {
        Ok(open) if open.is_empty() => State::Guarded,
        Ok(open) => State::Open(open),
        Err(why) => State::Unexamined(why),
    };
    if listeners.share_an_address() {
        let why = "several programs listen there".to_owned();
        return (State::Unexamined(why), None);
    }
    if is_silent(&idle) && listeners == Listeners::local(port) {
        return match state {
            State::Unexamined(_) => (state, None),
            state => (state, Some((idle, listeners))),
        };
    }
    // It ended, or another program took its place.
    match TcpStream::connect(address).await {
        Ok(_) if matches!(state, State::Unexamined(_)) => (state, None),
        Ok(_) => {
            let why = "it closed a connection while it was examined".to_owned();
            (State::Unexamined(why), None)
        }
        Err(error) => (refused(error), None),
    }
}

fn refused(error: std::io::Error) -> State {
    match error.kind() {
        std::io::ErrorKind::ConnectionRefused => State::Absent,
        _ => State::Unexamined(error.to_string()),
    }
}

/// The users that can log in without a password, or why that is not known.
async fn log_in_as_each(port: u16) -> Result<Vec<&'static str>, String> {
    let local = Local::new(port);
    let mut open = Vec::new();
    for user in USERS {
        let is_open = timeout(LOGIN, logs_in(&local, user)).await;
        let is_open = is_open.unwrap_or_else(|_| Err("no answer to a login".to_owned()));
        if is_open? {
            open.push(user);
        }
    }
    Ok(open)
}

/// Tries a blank password. A session that it gets is ended at once.
async fn logs_in(local: &Local, user: &str) -> Result<bool, String> {
    let login = Request {
        path: "/api/v1/auth/login",
        token: None,
        body: json!({"username": user, "password": ""}),
    };
    let answer = local.post(login).await?;
    match answer.status {
        401 | 403 => Ok(false),
        200..300 => {
            let said: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
            let token = said["token"].as_str();
            let token = token.ok_or("the answer to a login is not that of a Determined master")?;
            let logout = Request {
                path: "/api/v1/auth/logout",
                token: Some(token),
                body: json!({}),
            };
            // The state is the same if it fails, and the port stays closed.
            drop(local.post(logout).await);
            Ok(true)
        }
        status => Err(format!("it answers a login with HTTP status {status}")),
    }
}

/// Whether the other end has neither sent anything nor closed the connection. Asks the kernel: the readiness that tokio
/// remembers is older.
pub(super) fn is_silent(stream: &TcpStream) -> bool {
    let mut byte = [0];
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    matches!(
        recv(stream, &mut byte, flags),
        Err(Errno::AGAIN | Errno::INTR)
    )
}

/// Waits for the end of that.
pub(super) async fn ended(stream: &TcpStream) {
    drop(stream.peek(&mut [0]).await);
}
