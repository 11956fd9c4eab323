//! ssh's complaints, as errors that say what to do. The only place that knows ssh's wording.

mod local;
mod login;
mod reach;

use std::fmt;
use std::path::PathBuf;

use protocol::StageError;

use crate::config::Config;

pub(crate) use login::key_permissions;

/// Whom ssh talks to, in the words of messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) user: String,
    pub(crate) host: String,
    pub(crate) port: u16,
    /// The key that the config names.
    pub(crate) key: Option<PathBuf>,
    /// The file of known hosts that the config names.
    pub(crate) known_hosts: Option<PathBuf>,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}:{}", self.user, self.host, self.port)
    }
}

impl Target {
    /// As far as it is known without ssh, which may know it by another name.
    pub(crate) fn as_written(config: &Config) -> Target {
        Target {
            user: config.ssh_user.clone().unwrap_or_default(),
            host: config.reverse_proxy_host.clone(),
            port: config.ssh_port.unwrap_or(22),
            key: config.ssh_key_path.clone(),
            known_hosts: config.known_hosts_path.clone(),
        }
    }

    /// How known_hosts and ssh-keyscan name the server.
    fn known_as(&self) -> String {
        match self.port {
            22 => self.host.clone(),
            port => format!("[{}]:{port}", self.host),
        }
    }

    fn by_hand(&self) -> String {
        format!("ssh -v -p {} {}@{}", self.port, self.user, self.host)
    }

    fn key(&self) -> String {
        match &self.key {
            Some(path) => format!("ssh key {}", path.display()),
            None => "every key that ssh_config and the agent offer".to_owned(),
        }
    }
}

type Rule = fn(&Lines, &Target) -> Option<StageError>;

/// The most telling complaint first: a refused login is also what a locked key ends in.
const RULES: &[Rule] = &[
    local::own_options,
    local::control_socket,
    reach::proxy,
    login::host_key,
    login::key_file,
    login::login,
    reach::reaching,
];

/// Why ssh ended, or hung, before it was logged in.
pub(crate) fn connecting(lines: &[String], target: &Target) -> StageError {
    let lines = Lines(lines);
    let known = RULES.iter().find_map(|rule| rule(&lines, target));
    lines.causes(known.unwrap_or_else(|| {
        let hint = format!("see what it says by hand: {}", target.by_hand());
        error("tunnel.ssh_failed", format!("ssh to {target} failed"), hint)
    }))
}

fn error(code: &str, message: impl Into<String>, hint: impl Into<String>) -> StageError {
    StageError::new(code, message).hint(hint)
}

/// Why ssh ended after it had been logged in.
pub(crate) fn connection_lost(lines: &[String], target: &Target) -> StageError {
    let error = StageError::new(
        "tunnel.connection_lost",
        format!("the ssh connection to {target} was lost"),
    );
    // Visitors' connections that found nobody at home are not the cause.
    let complaints = Lines(lines)
        .complaints()
        .into_iter()
        .filter(|l| !l.starts_with("connect_to "));
    complaints.fold(error.retryable(true), StageError::cause)
}

/// ssh did not come to an end in time.
pub(crate) fn no_answer(lines: &[String], target: &Target, seconds: f64) -> StageError {
    let message = format!("{target} did not answer within {seconds} s");
    let hint = "the server or a firewall on the way may be slow or closed: allow more with connect_timeout, or try another network";
    Lines(lines).causes(error("tunnel.server_timeout", message, hint).retryable(true))
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

    /// The error, with what ssh says of its own accord.
    fn causes(&self, error: StageError) -> StageError {
        self.complaints().into_iter().fold(error, StageError::cause)
    }

    fn complaints(&self) -> Vec<String> {
        let told = |l: &&String| {
            !l.is_empty() && !l.starts_with("debug") && !l.starts_with('@') && !is_chatter(l)
        };
        let all: Vec<String> = self.0.iter().filter(told).cloned().collect();
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
