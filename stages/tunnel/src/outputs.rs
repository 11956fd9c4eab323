//! What the tunnel reports.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::Scheme;

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
    /// The other ports that lead here, by the names that `forwards` gives them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub forwards: BTreeMap<String, Forwarded>,
}

/// One more port of the server that leads here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Forwarded {
    /// The port of the server.
    pub port: u16,
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
