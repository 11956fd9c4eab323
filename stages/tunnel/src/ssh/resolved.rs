//! Resolves the user's ssh_config.

use std::time::Duration;

use protocol::StageError;

use super::failure::{self, Server};
use super::options::{destination, not_started, output};
use crate::codes;
use crate::config::{Config, Seconds};

/// Reading ssh_config takes 10 ms; a `Match exec` in it may take longer.
const RESOLVE: Duration = Duration::from_secs(10);

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A loss is noticed after nine seconds, at the cost of one packet every three seconds on an idle line.
const KEEPALIVE_INTERVAL: u32 = 3;
const KEEPALIVE_COUNT: u32 = 2;

/// The fields of `ssh -G` that we need.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Resolved {
    pub(crate) host: String,
    pub(crate) user: String,
    pub(crate) port: u16,
    ciphers: String,
    has_proxy: bool,
    /// The values of ssh_config, if it has any.
    connect_timeout: Option<u64>,
    keepalive_interval: Option<u32>,
}

impl Resolved {
    /// Asks ssh how it resolves the host: an alias in ssh_config has a name, user and port of its own.
    pub(crate) async fn from_ssh(config: &Config) -> Result<Resolved, StageError> {
        let mut args = vec!["-G".into()];
        args.extend(destination(config));
        let answer = tokio::time::timeout(RESOLVE, output(&args)).await;
        let answer = answer.map_err(|_| {
            StageError::new(codes::SSH_CONFIG_SLOW, "ssh -G did not finish within 10 s")
        })?;
        let (status, stdout, stderr) = answer.map_err(|e| not_started(&e))?;
        let resolved = Resolved::parse(&stdout);
        if !status.success() || resolved.host.is_empty() {
            let lines: Vec<String> = stderr.lines().map(str::to_owned).collect();
            return Err(failure::connecting_error(
                &lines,
                &Server::from_config(config),
            ));
        }
        Ok(resolved)
    }

    fn parse(text: &str) -> Resolved {
        let mut resolved = Resolved {
            port: 22,
            ..Resolved::default()
        };
        for (word, value) in text.lines().filter_map(|line| line.split_once(' ')) {
            match word {
                "hostname" => resolved.host = value.to_owned(),
                "user" => resolved.user = value.to_owned(),
                "port" => resolved.port = value.parse().unwrap_or(22),
                "proxyjump" | "proxycommand" => resolved.has_proxy = value != "none",
                // "none" and 0 are ssh's defaults, not values of the user.
                "connecttimeout" => resolved.connect_timeout = value.parse().ok(),
                "serveraliveinterval" => {
                    resolved.keepalive_interval = value.parse().ok().filter(|n| *n > 0);
                }
                "ciphers" => resolved.ciphers = value.to_owned(),
                _ => {}
            }
        }
        resolved
    }

    pub(crate) fn server(&self, config: &Config) -> Server {
        Server {
            user: self.user.clone(),
            host: self.host.clone(),
            port: self.port,
            ..Server::from_config(config)
        }
    }

    /// The host that pods use, if it is not ssh's.
    pub(crate) fn separate_public_host<'a>(&self, config: &'a Config) -> Option<&'a str> {
        let other = config.public_host.as_deref();
        other.filter(|host| *host != self.host && *host != config.reverse_proxy_host)
    }

    /// The address that ssh connects to; `None` with a proxy on the way.
    pub(crate) fn direct_address(&self) -> Option<(String, u16)> {
        (!self.has_proxy).then(|| (self.host.clone(), self.port))
    }

    pub(crate) fn connect_timeout(&self, config: &Config) -> Duration {
        let own = self.connect_timeout.map(Duration::from_secs);
        let asked = config.connect_timeout.map(Seconds::duration);
        asked.or(own).unwrap_or(CONNECT_TIMEOUT)
    }

    /// A half-open connection is noticed after interval × (count + 1). Values of ssh_config win over our defaults.
    pub(super) fn keepalives(&self, config: &Config) -> Vec<String> {
        let untouched = self.keepalive_interval.is_some();
        let ours = |default| (!untouched).then_some(default);
        let interval = config.keepalive_interval.or(ours(KEEPALIVE_INTERVAL));
        let count = config.keepalive_count.or(ours(KEEPALIVE_COUNT));
        let interval = interval.map(|n| format!("ServerAliveInterval={n}"));
        let count = count.map(|n| format!("ServerAliveCountMax={n}"));
        interval.into_iter().chain(count).collect()
    }

    /// AES-GCM is nearly twice as fast as ssh's default if the CPU has AES. Only the order changes: a cipher that the
    /// user excludes stays excluded, and an order that the user sets stays.
    pub(super) fn faster_ciphers(&self, cpu_has_aes: bool) -> Option<String> {
        const DEFAULT: &str = "chacha20-poly1305@openssh.com";
        const FAST: &str = "aes128-gcm@openssh.com";
        let others: Vec<&str> = self.ciphers.split(',').filter(|c| *c != FAST).collect();
        let applies = cpu_has_aes
            && others.first() == Some(&DEFAULT)
            && self.ciphers.split(',').any(|c| c == FAST);
        applies.then(|| format!("{FAST},{}", others.join(",")))
    }
}

#[cfg(test)]
mod tests;
