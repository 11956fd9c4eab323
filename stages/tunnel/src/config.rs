//! The config of a tunnel.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::path::PathBuf;

use protocol::validate::Audience;
use protocol::{PortRange, Problem};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};

mod types;

pub use types::{GuardPolicy, HostKeyPolicy, PortPolicy, Scheme, Seconds, Verify};

/// Config of a tunnel.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The ssh server that pods can reach: a name, an address or a Host of your ssh_config.
    #[serde(deserialize_with = "host")]
    pub reverse_proxy_host: String,

    /// Private key for the login. Default: the keys of ssh_config and the agent.
    #[serde(default)]
    pub ssh_key_path: Option<PathBuf>,

    /// User on the ssh server. Default: from ssh_config.
    #[serde(default)]
    pub ssh_user: Option<String>,

    /// Port of the ssh server. Default: from ssh_config.
    #[serde(default)]
    #[schemars(range(min = 1))]
    pub ssh_port: Option<u16>,

    /// Ports of the ssh server to choose from, both ends included: [8000, 9000], "8000,9000" or "8000-9000".
    #[serde(default = "default_range")]
    pub remote_port_range: PortRange,

    /// Port of the master on this machine. The master need not run yet.
    #[serde(default = "default_local_port")]
    #[schemars(range(min = 1))]
    pub local_port: u16,

    /// Whether visitors get through only while a Determined master listens on local_port whose users `admin` and
    /// `determined` have passwords. Default: none; `devcluster-remote up` sets determined in front of a master.
    #[serde(default)]
    #[schemars(with = "GuardPolicy")]
    pub guard: Option<GuardPolicy>,

    /// More ports of this machine to forward over the same connection, such as a web UI or a debugger: [{"name": "ui",
    /// "local_port": 3000, "remote_port_range": "8100-8110"}].
    #[serde(default)]
    pub forwards: Vec<ForwardConfig>,

    /// Address of the ssh server to listen on. Default: all addresses.
    #[serde(default, deserialize_with = "some_host")]
    pub bind_address: Option<String>,

    /// Name or address by which pods reach the ssh server. Default: the host that ssh connects to. If this machine does
    /// not reach it, as with an address inside a cloud's network, the tunnel is reported as unverified.
    #[serde(default, deserialize_with = "some_host")]
    pub public_host: Option<String>,

    /// Protocol between pods and the master.
    #[serde(default)]
    pub scheme: Scheme,

    /// What to do if the server's host key is not known.
    #[serde(default)]
    pub host_key_policy: HostKeyPolicy,

    /// File of known host keys, in place of ssh's own files.
    #[serde(default)]
    pub known_hosts_path: Option<PathBuf>,

    /// File to use in place of your ssh_config; "none" uses no file.
    #[serde(default)]
    pub ssh_config_path: Option<PathBuf>,

    /// What to do if the port is not available again within keep_port, or if it is in use at the start although this
    /// instance used it before.
    #[serde(default)]
    pub port_policy: PortPolicy,

    /// Whether to prove, by a connection from outside, that the port leads to this machine.
    #[serde(default)]
    pub verify: Verify,

    /// Seconds between two proofs while ready.
    #[serde(default = "default_probe_interval")]
    pub probe_interval: Seconds,

    /// Seconds to wait for the ssh server. Default: from ssh_config, else 10.
    #[serde(default)]
    pub connect_timeout: Option<Seconds>,

    /// Seconds of silence after which ssh sends a keepalive. Default: from ssh_config, else 3. A dead connection is
    /// noticed after interval × (count + 1).
    #[serde(default)]
    #[schemars(range(min = 1, max = 3600))]
    pub keepalive_interval: Option<u32>,

    /// How many keepalives may stay unanswered. Default: from ssh_config, else 2.
    #[serde(default)]
    #[schemars(range(min = 1, max = 100))]
    pub keepalive_count: Option<u32>,

    /// The longest pause in seconds between two attempts to reconnect. A pause is a random part of a bound that doubles
    /// up to this value, so that many tunnels do not reconnect at once. A network that returns ends the pause.
    #[serde(default = "default_reconnect_pause")]
    pub reconnect_pause: Seconds,

    /// Seconds to wait for the same port after the connection is lost, before another port is used and reported.
    /// Default: 60 if another program has the port, and an hour if the server may still hold our own earlier session.
    #[serde(default)]
    pub keep_port: Option<Seconds>,
}

/// One more port of this machine to forward.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ForwardConfig {
    /// Port on this machine. It need not be in use yet.
    #[schemars(range(min = 1))]
    pub local_port: u16,

    /// Ports of the ssh server to choose from. Default: the tunnel's remote_port_range.
    #[serde(default)]
    pub remote_port_range: Option<PortRange>,

    /// The guard of this local port, as that of the tunnel's own.
    #[serde(default)]
    #[schemars(with = "GuardPolicy")]
    pub guard: Option<GuardPolicy>,

    /// Name in the outputs. Default: the local port.
    #[serde(default)]
    pub name: Option<String>,
}

impl ForwardConfig {
    pub(crate) fn name(&self) -> String {
        self.name
            .clone()
            .unwrap_or_else(|| self.local_port.to_string())
    }
}

/// Accepts an IPv6 address in brackets, as in a URL.
fn bare(host: String) -> String {
    let inside = host.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
    match inside {
        Some(inside) if inside.parse::<Ipv6Addr>().is_ok() => inside.to_owned(),
        _ => host,
    }
}

fn host<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    String::deserialize(deserializer).map(bare)
}

fn some_host<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let host = Option::<String>::deserialize(deserializer)?;
    Ok(host.map(bare))
}

fn default_range() -> PortRange {
    PortRange {
        first: 8000,
        last: 9000,
    }
}

fn default_local_port() -> u16 {
    8080
}

fn default_probe_interval() -> Seconds {
    Seconds(30.0)
}

fn default_reconnect_pause() -> Seconds {
    Seconds(10.0)
}

impl Config {
    /// Who can reach the port on the ssh server. Only an address or a name that is clearly not "all addresses" counts
    /// as narrow: ssh accepts many spellings of zero.
    pub(crate) fn audience(&self) -> Audience {
        let address = self.bind_address.as_deref().unwrap_or_default().trim();
        match address.parse::<IpAddr>().map(|a| a.to_canonical()) {
            Ok(address) if address.is_loopback() => Audience::Host,
            Ok(IpAddr::V4(a)) if a.is_private() || a.is_link_local() => Audience::Cluster,
            Ok(IpAddr::V6(a)) if a.is_unique_local() || a.is_unicast_link_local() => {
                Audience::Cluster
            }
            Ok(_) => Audience::Internet,
            Err(_) if address == "localhost" => Audience::Host,
            Err(_) if address.starts_with(|c: char| c.is_ascii_alphabetic()) => Audience::Cluster,
            Err(_) => Audience::Internet,
        }
    }

    pub(crate) fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let host = &self.reverse_proxy_host;
        if host.is_empty() || host.starts_with('-') || host.contains(char::is_whitespace) {
            problems.push(Problem::new(
                "reverse_proxy_host",
                format!("{host:?} is not a valid host name"),
            ));
        }
        let mut check = |field: &str, is_valid: bool, why: &str| {
            if !is_valid {
                problems.push(Problem::new(field, why));
            }
        };
        for (field, seconds) in [
            ("probe_interval", Some(self.probe_interval)),
            ("connect_timeout", self.connect_timeout),
            ("reconnect_pause", Some(self.reconnect_pause)),
            ("keep_port", self.keep_port),
        ] {
            let is_valid = seconds.is_none_or(Seconds::is_valid);
            check(
                field,
                is_valid,
                "must be more than 0 and at most 86400 (a day)",
            );
        }
        let among =
            |range: RangeInclusive<u32>, n: Option<u32>| n.is_none_or(|n| range.contains(&n));
        let is_valid = among(1..=3600, self.keepalive_interval);
        check("keepalive_interval", is_valid, "must be 1 to 3600");
        let is_valid = among(1..=100, self.keepalive_count);
        check("keepalive_count", is_valid, "must be 1 to 100");
        check("ssh_port", self.ssh_port != Some(0), "0 is not a port");
        check("local_port", self.local_port != 0, "0 is not a port");
        problems.extend(self.problems_of_forwards());
        problems
    }

    fn problems_of_forwards(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut local_ports = BTreeSet::from([self.local_port]);
        let mut names = BTreeSet::new();
        for (i, forward) in self.forwards.iter().enumerate() {
            let mut problem = |field: &str, message: String| {
                let problem = Problem::new(format!("forwards[{i}].{field}"), message);
                let others = (0..self.forwards.len()).filter(|other| *other != i);
                let others = others.map(|other| format!("forwards[{other}]"));
                problems.push(others.fold(problem.depends_on("local_port"), Problem::depends_on));
            };
            let (port, name) = (forward.local_port, forward.name());
            if port == 0 {
                problem("local_port", "0 is not a port".into());
            } else if !local_ports.insert(port) {
                problem("local_port", format!("{port} is already forwarded"));
            }
            let plain = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
            if name.is_empty() || !name.chars().all(plain) {
                let what =
                    format!("{name:?} is not a valid name: use letters, digits, `-` and `_`");
                problem("name", what);
            } else if !names.insert(name.clone()) {
                problem(
                    "name",
                    format!("{name:?} is already the name of another forward"),
                );
            }
        }
        problems
    }
}
