//! A session that the server may still hold after the stage was killed or the machine lost power.

use std::ffi::OsString;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use protocol::{Leftover, StageError};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time::timeout;

use super::{Ghost, Greeting, RemoteSession, command};
use crate::codes;
use crate::ssh::options;

/// After this time every server has noticed the loss, if only by TCP keepalive.
const FORGOTTEN: Duration = Duration::from_secs(24 * 60 * 60);

/// A session in the ledger: enough to find it again without the config.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct SessionRecord {
    session: RemoteSession,
    login: Vec<String>,
    server: String,
    since: u64,
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// The recorded session; `None` if it is too old.
pub(crate) fn leftover(data: &Value) -> Option<Leftover<'static>> {
    let noted = SessionRecord::deserialize(data).ok()?;
    if now().saturating_sub(noted.since) > FORGOTTEN.as_secs() {
        return None;
    }
    let title = format!(
        "the session that {} still holds, its process {}",
        noted.server, noted.session.pid
    );
    let looked_at = noted.clone();
    let look = async move { Ok(looked_at.fate("1").await? == Ghost::Stays) };
    let remove = async move {
        match noted.fate("").await? {
            Ghost::Ended => Ok(true),
            Ghost::Gone => Ok(false),
            Ghost::Stays => {
                let why = format!("its process {} does not end", noted.session.pid);
                Err(noted.unknown(why))
            }
        }
    };
    Some(Leftover::new(title, remove).probe(look))
}

impl SessionRecord {
    pub(crate) fn new(
        session: &RemoteSession,
        login: &[OsString],
        server: String,
    ) -> SessionRecord {
        let login = login.iter().map(|arg| arg.to_string_lossy().into_owned());
        SessionRecord {
            session: session.clone(),
            login: login.collect(),
            server,
            since: now(),
        }
    }

    fn unknown(&self, why: String) -> StageError {
        let server = &self.server;
        let message = format!(
            "cannot find out whether {server} still holds an earlier session of the tunnel"
        );
        StageError::new(codes::GHOST_UNKNOWN, message).cause(why)
    }

    /// Asks the server about the session.
    async fn fate(&self, look: &str) -> Result<Ghost, StageError> {
        let command = command(look, std::slice::from_ref(&self.session));
        let args: Vec<&str> = self
            .login
            .iter()
            .chain([&command])
            .map(String::as_str)
            .collect();
        let (_, stdout, stderr) = timeout(options::LOGIN, options::output(&args))
            .await
            .map_err(|_| self.unknown(format!("no answer within {:?}", options::LOGIN)))?
            .map_err(|e| self.unknown(e.to_string()))?;
        Greeting::parse(&stdout)
            .fate_of(&self.session)
            .ok_or_else(|| self.unknown(stderr.lines().last().unwrap_or_default().to_owned()))
    }
}
