//! The words that a config may choose between.

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
    /// A day is as good as for ever, and more would overflow somewhere.
    const MAX: f64 = 86_400.0;

    pub(crate) fn duration(self) -> Duration {
        Duration::from_secs_f64(self.0.clamp(0.0, Self::MAX))
    }

    pub(crate) fn is_valid(self) -> bool {
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
