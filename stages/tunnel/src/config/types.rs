//! The types of config fields.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
    /// A day is as good as forever, and a larger value would overflow.
    const MAX: f64 = 86_400.0;

    pub(crate) fn duration(self) -> Duration {
        Duration::from_secs_f64(self.0.clamp(0.0, Self::MAX))
    }

    pub(crate) fn is_valid(self) -> bool {
        self.0 > 0.0 && self.0 <= Self::MAX
    }
}

/// Protocol between pods and the master.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    /// Plain HTTP.
    #[default]
    Http,
    /// HTTPS: the master serves TLS itself.
    Https,
}

/// What a guard examines before it lets visitors through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum GuardPolicy {
    /// A Determined master, whose built-in users must have passwords.
    Determined,
    /// Nothing: there is no guard.
    None,
}

impl GuardPolicy {
    /// As it is written.
    pub(crate) const DETERMINED: &str = "determined";
}

/// What to do if the server's host key is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum HostKeyPolicy {
    /// Refuse it.
    #[default]
    Strict,
    /// Accept and store it; a changed key is refused.
    AcceptNew,
    /// Accept any key. Anyone on the way can then read and change the traffic.
    Off,
}

/// What to do if the port is not available again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PortPolicy {
    /// Use another port and report it: new outputs, a higher gen.
    #[default]
    Sticky,
    /// Fail: the port is written in a place that is not updated.
    Pinned,
}

/// What to prove before the tunnel is ready.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Verify {
    /// Fail if the port does not lead here; report `unverified` if this cannot be decided.
    #[default]
    Auto,
    /// Fail also if this cannot be decided.
    Require,
    /// Only ssh's report of our own source port counts. NAT on the way rewrites it.
    Origin,
    /// Only a random word that arrives at the local port counts. The local port has to be free until then.
    Nonce,
    /// A connection is enough, whoever accepts it.
    Tcp,
    /// No proof: pods may reach the port although this machine does not.
    Off,
}
