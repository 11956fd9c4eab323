//! What the user says, and what the tunnel reports.

use std::path::PathBuf;
use std::time::Duration;

use protocol::Problem;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::port_range::PortRange;

/// Config of a tunnel.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The ssh server that pods can reach: a name, an address or a Host of your ssh_config.
    pub reverse_proxy_host: String,

    /// Private key to log in with. Unset: what ssh_config and the agent offer.
    #[serde(default)]
    pub ssh_key_path: Option<PathBuf>,

    /// User on the ssh server. Unset: what ssh_config says.
    #[serde(default)]
    pub ssh_user: Option<String>,

    /// Port of the ssh server. Unset: what ssh_config says.
    #[serde(default)]
    #[schemars(range(min = 1))]
    pub ssh_port: Option<u16>,

    /// Ports of the ssh server to choose from, both ends included: [8000, 9000], "8000,9000" or "8000-9000".
    #[serde(default)]
    pub remote_port_range: PortRange,

    /// Port of the master on this machine. Nothing needs to listen there yet.
    #[serde(default = "default_local_port")]
    #[schemars(range(min = 1))]
    pub local_port: u16,

    /// Address of the ssh server to listen on. Unset: all of them.
    #[serde(default)]
    pub bind_address: Option<String>,

    /// Name or address by which pods reach the ssh server. Unset: the host that ssh connects to.
    #[serde(default)]
    pub public_host: Option<String>,

    /// What pods speak to the master.
    #[serde(default)]
    pub scheme: Scheme,

    /// What to do about a host key that is not known.
    #[serde(default)]
    pub host_key_policy: HostKeyPolicy,

    /// File of known host keys to use instead of ssh's own.
    #[serde(default)]
    pub known_hosts_path: Option<PathBuf>,

    /// File to use instead of your ssh_config; "none" uses no file at all.
    #[serde(default)]
    pub ssh_config_path: Option<PathBuf>,

    /// What to do when the port cannot be had again within keep_port, or is not free at the start although this instance had
    /// it before.
    #[serde(default)]
    pub port_policy: PortPolicy,

    /// Whether to prove, by a connection from outside, that pods can reach the port.
    #[serde(default)]
    pub verify: Verify,

    /// Seconds between two such proofs while ready.
    #[serde(default = "default_probe_interval")]
    pub probe_interval: Seconds,

    /// Seconds for the ssh server to answer. Unset: what ssh_config says, else 10.
    #[serde(default)]
    pub connect_timeout: Option<Seconds>,

    /// Seconds of silence after which ssh asks whether the server is still there. Unset: what ssh_config says, else 3. A dead
    /// connection is noticed after interval × (count + 1).
    #[serde(default)]
    #[schemars(range(min = 1, max = 3600))]
    pub keepalive_interval: Option<u32>,

    /// How many such questions may stay unanswered. Unset: what ssh_config says, else 2.
    #[serde(default)]
    #[schemars(range(min = 1, max = 100))]
    pub keepalive_count: Option<u32>,

    /// The longest pause in seconds between two attempts to connect again. Each is a random part of a bound that doubles up
    /// to this, so that many tunnels do not come all at once; a network that comes back ends the pause.
    #[serde(default = "default_reconnect_pause")]
    pub reconnect_pause: Seconds,

    /// Seconds to insist on the same port after the connection was lost, before another port is taken and reported. Unset: 60
    /// when somebody else has it, and an hour when it may be our own session that the server has not missed yet.
    #[serde(default)]
    pub keep_port: Option<Seconds>,
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

/// A positive number of seconds, fractions allowed.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, PartialOrd)]
pub struct Seconds(pub(crate) f64);

impl JsonSchema for Seconds {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Seconds".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "number", "exclusiveMinimum": 0})
    }
}

impl Seconds {
    /// A day is as good as for ever, and more would overflow somewhere.
    const MAX: f64 = 86_400.0;

    pub(crate) fn duration(self) -> Duration {
        Duration::from_secs_f64(self.0.clamp(0.0, Self::MAX))
    }

    fn is_valid(self) -> bool {
        self.0 > 0.0 && self.0 <= Self::MAX
    }
}

/// What pods speak to the master.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    /// Plain HTTP.
    #[default]
    Http,
    /// The master serves TLS itself.
    Https,
}

/// What to do about a host key that is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum HostKeyPolicy {
    /// Refuse.
    #[default]
    Strict,
    /// Take it and remember it; a changed one is refused.
    AcceptNew,
    /// Take anything. Whoever is on the way can then read and change what passes.
    Off,
}

/// What to do when the port cannot be had again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PortPolicy {
    /// Take another one and report it: new outputs, a higher gen.
    #[default]
    Sticky,
    /// Fail: the port is written down somewhere that nobody changes.
    Pinned,
}

/// What has to be proven before the tunnel is ready.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Verify {
    /// Fail when the way is closed; report `unverified` when it cannot be told.
    #[default]
    Auto,
    /// Fail also when it cannot be told.
    Require,
    /// Only ssh's own report of our source port counts. It does not come through NAT.
    Origin,
    /// Only a random word that comes out on the local port counts, which has to be free until then.
    Nonce,
    /// A connection is enough, whoever takes it.
    Tcp,
    /// Do not try: this machine may not reach the port although pods can.
    Off,
}

/// What the tunnel found out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Outputs {
    /// Where pods reach the master.
    pub host: String,
    /// The port there.
    pub port: u16,
    /// What they speak to it.
    pub scheme: Scheme,
    /// The ssh server's name as ssh resolves it.
    pub ssh_host: String,
    /// Where connections end on this machine.
    pub local_port: u16,
    /// How it is known that a connection from outside arrives in this very session.
    pub verified: Verified,
}

/// How it is known that a connection from outside arrives in this very session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Verified {
    /// ssh reported a connection from the source port that we used.
    Origin,
    /// A random word sent to the public side came out on the local port.
    Nonce,
    /// The port takes connections; whose it is was not asked for.
    Tcp,
    /// It is not known.
    Unverified,
}

impl Config {
    pub(crate) fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let host = &self.reverse_proxy_host;
        if host.is_empty() || host.starts_with('-') || host.contains(char::is_whitespace) {
            problems.push(Problem::new(
                "reverse_proxy_host",
                format!("{host:?} is no host name"),
            ));
        }
        for (field, seconds) in [
            ("probe_interval", Some(self.probe_interval)),
            ("connect_timeout", self.connect_timeout),
            ("reconnect_pause", Some(self.reconnect_pause)),
            ("keep_port", self.keep_port),
        ] {
            if seconds.is_some_and(|seconds| !seconds.is_valid()) {
                problems.push(Problem::new(
                    field,
                    "has to be more than 0 and at most a day",
                ));
            }
        }
        for (field, number, most) in [
            ("keepalive_interval", self.keepalive_interval, 3600),
            ("keepalive_count", self.keepalive_count, 100),
        ] {
            if number.is_some_and(|n| n == 0 || n > most) {
                problems.push(Problem::new(field, format!("has to be 1 to {most}")));
            }
        }
        for (field, port) in [
            ("ssh_port", self.ssh_port),
            ("local_port", Some(self.local_port)),
        ] {
            if port == Some(0) {
                problems.push(Problem::new(field, "0 is no port"));
            }
        }
        problems
    }
}
