//! Turns ssh's messages into errors with hints. The only place that knows ssh's wording.

mod local;
mod login;
mod network;

use std::fmt;
use std::path::PathBuf;

use protocol::StageError;

use crate::codes;
use crate::config::Config;

pub(crate) use login::key_permissions;

/// The ssh server and the login, as messages show them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Server {
    pub(crate) user: String,
    pub(crate) host: String,
    pub(crate) port: u16,
    /// The key that the config names.
    pub(crate) key: Option<PathBuf>,
    /// The known_hosts file that the config names.
    pub(crate) known_hosts: Option<PathBuf>,
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}:{}", self.user, self.host, self.port)
    }
}

impl Server {
    /// The server as the config names it; ssh may resolve it to another name.
    pub(crate) fn from_config(config: &Config) -> Server {
        Server {
            user: config.ssh_user.clone().unwrap_or_default(),
            host: config.reverse_proxy_host.clone(),
            port: config.ssh_port.unwrap_or(22),
            key: config.ssh_key_path.clone(),
            known_hosts: config.known_hosts_path.clone(),
        }
    }

    /// The name of the server in known_hosts.
    fn host_key_name(&self) -> String {
        match self.port {
            22 => self.host.clone(),
            port => format!("[{}]:{port}", self.host),
        }
    }

    fn debug_command(&self) -> String {
        format!("ssh -v -p {} {}@{}", self.port, self.user, self.host)
    }

    fn key(&self) -> String {
        match &self.key {
            Some(path) => format!("ssh key {}", path.display()),
            None => "every key of ssh_config and the agent".to_owned(),
        }
    }
}

type Rule = fn(&Lines, &Server) -> Option<StageError>;

/// The most specific rule first: a locked key also ends in a refused login.
const RULES: &[Rule] = &[
    local::own_options,
    local::control_socket,
    network::proxy,
    login::host_key,
    login::key_file,
    login::login,
    network::reaching,
];

/// The error for an ssh that ended, or hung, before the login.
pub(crate) fn connecting_error(lines: &[String], server: &Server) -> StageError {
    let lines = Lines(lines);
    let known = RULES.iter().find_map(|rule| rule(&lines, server));
    lines.with_causes(known.unwrap_or_else(|| {
        let hint = format!("try by hand: {}", server.debug_command());
        StageError::new(codes::SSH_FAILED, format!("ssh to {server} failed")).hint(hint)
    }))
}

/// The error for an ssh that ended after the login.
pub(crate) fn connection_lost_error(lines: &[String], server: &Server) -> StageError {
    let error = StageError::new(
        codes::CONNECTION_LOST,
        format!("the ssh connection to {server} was lost"),
    );
    // Failed connections to the local port are not the cause.
    let complaints = Lines(lines)
        .complaints()
        .into_iter()
        .filter(|l| !l.starts_with("connect_to "));
    complaints.fold(error, StageError::cause)
}

/// The error for an ssh that did not finish in time.
pub(crate) fn timeout_error(lines: &[String], server: &Server, seconds: f64) -> StageError {
    let message = format!("{server} did not answer within {seconds} s");
    Lines(lines).with_causes(StageError::new(codes::SERVER_TIMEOUT, message))
}

struct Lines<'a>(&'a [String]);

impl Lines<'_> {
    fn find(&self, text: &str) -> Option<&str> {
        let mut lines = self.0.iter().map(String::as_str);
        lines.find(|line| line.contains(text))
    }

    fn has(&self, text: &str) -> bool {
        self.find(text).is_some()
    }

    fn has_any(&self, texts: &[&str]) -> bool {
        texts.iter().any(|text| self.has(text))
    }

    /// Adds ssh's own messages as causes.
    fn with_causes(&self, error: StageError) -> StageError {
        self.complaints().into_iter().fold(error, StageError::cause)
    }

    fn complaints(&self) -> Vec<String> {
        let is_relevant = |l: &&String| {
            !l.is_empty() && !l.starts_with("debug") && !l.starts_with('@') && !is_chatter(l)
        };
        let all: Vec<String> = self.0.iter().filter(is_relevant).cloned().collect();
        all[all.len().saturating_sub(12)..].to_vec()
    }
}

fn is_chatter(line: &str) -> bool {
    [
        "Authenticated to ",
        "Transferred: ",
        "Bytes per second: ",
        "Warning: Permanently added",
    ]
    .iter()
    .any(|start| line.starts_with(start))
}

#[cfg(test)]
mod tests;
