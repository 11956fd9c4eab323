//! The server's end of a session whose stage was killed, or whose machine lost its power.

use std::ffi::OsString;
use std::time::Duration;

use protocol::{Leftover, StageError};
use serde_json::Value;
use tokio::time::timeout;

use super::{Ghost, Greeting, RemoteSession, greet, look, now};
use crate::ssh::options;

/// Any server has noticed by itself after that, if only by TCP's own keepalive.
const FORGOTTEN: Duration = Duration::from_secs(24 * 60 * 60);

/// What the ledger has of it; `None` where that is too long ago.
pub(crate) fn leftover(data: &Value) -> Option<Leftover<'_>> {
    let left = Left::of(data)?;
    let title = left.title();
    let (look_at, command) = (left.clone(), look([&left.session]));
    let look = async move { Ok(look_at.fate(command).await? == Ghost::Stays) };
    let remove = async move {
        match left.fate(greet([&left.session])).await? {
            Ghost::Ended => Ok(true),
            Ghost::Gone => Ok(false),
            Ghost::Stays => {
                let why = format!("its process {} does not end", left.session.pid);
                Err(left.unknown(why))
            }
        }
    };
    Some(Leftover::new(title, remove).look(look))
}

/// A session that the server may still hold, as the ledger has it.
#[derive(Clone)]
struct Left<'a> {
    session: RemoteSession,
    login: Vec<OsString>,
    server: &'a str,
}

impl Left<'_> {
    fn of(data: &Value) -> Option<Left<'_>> {
        let session = serde_json::from_value(data["session"].clone()).ok()?;
        let login: Vec<String> = serde_json::from_value(data["login"].clone()).ok()?;
        let age = now().saturating_sub(data["since"].as_u64().unwrap_or(0));
        (age <= FORGOTTEN.as_secs()).then(|| Left {
            session,
            login: login.into_iter().map(Into::into).collect(),
            server: data["server"].as_str().unwrap_or("the server"),
        })
    }

    fn title(&self) -> String {
        let Left {
            server, session, ..
        } = self;
        format!(
            "the session that {server} still held for us, its process {}",
            session.pid
        )
    }

    fn unknown(&self, why: String) -> StageError {
        let server = self.server;
        let message =
            format!("cannot tell whether {server} still holds an earlier session of ours");
        StageError::new("tunnel.ghost_unknown", message)
            .hint("run cleanup again once the server can be reached; the server ends the session by itself in time")
            .retryable(true)
            .cause(why)
    }

    /// What the server answers to a command about it.
    async fn fate(&self, command: String) -> Result<Ghost, StageError> {
        let mut args = self.login.clone();
        args.push(command.into());
        let (_, stdout, stderr) = timeout(options::LOGIN, options::output(&args))
            .await
            .map_err(|_| self.unknown(format!("no answer within {:?}", options::LOGIN)))?
            .map_err(|e| self.unknown(e.to_string()))?;
        Greeting::parse(&stdout)
            .fate_of(&self.session)
            .ok_or_else(|| self.unknown(stderr.lines().last().unwrap_or_default().to_owned()))
    }
}
