//! The outputs of a tunnel.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::Scheme;

/// The outputs of a tunnel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Outputs {
    /// Host by which pods reach the master.
    pub host: String,
    /// Port on that host.
    pub port: u16,
    /// Protocol between pods and the master.
    pub scheme: Scheme,
    /// The ssh server's name, as ssh resolves it.
    pub ssh_host: String,
    /// Local port of the master.
    pub local_port: u16,
    /// How the arrival in this ssh session is proven.
    pub verified: Verified,
    /// The other forwarded ports, by their names in `forwards`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub forwards: BTreeMap<String, Forwarded>,
}

/// One more forwarded port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Forwarded {
    /// Port of the server.
    pub port: u16,
    /// Local port it leads to.
    pub local_port: u16,
    /// How the arrival in this ssh session is proven.
    pub verified: Verified,
}

/// How the arrival in this ssh session is proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Verified {
    /// ssh reported a connection from our own source port.
    Origin,
    /// A random word sent to the public port arrived at the local port.
    Nonce,
    /// The port accepts connections; who accepts them was not checked.
    Tcp,
    /// Not proven.
    Unverified,
}
