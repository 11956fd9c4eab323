//! What the stage finds out.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the stage finds out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Outputs {
    /// The block for the master's Kubernetes resource manager, as it is.
    pub internal_task_gateway: InternalTaskGateway,
    /// A kubeconfig that holds the chosen context alone, for that resource manager. Gone when the stage has ended.
    pub kubeconfig_path: PathBuf,
    /// The context that was chosen.
    pub context: String,
    /// The controller of the Gateway's class; null when its class may not be read.
    pub controller: Option<String>,
    /// How many ports the master could open when the Gateway was found.
    pub capacity: u32,
    /// Whether the controller was installed by us.
    pub provisioned: bool,
}

/// Determined's `internal_task_gateway`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct InternalTaskGateway {
    /// The Gateway's name.
    pub gateway_name: String,
    /// The Gateway's namespace.
    pub gateway_namespace: String,
    /// The address at which the master reaches it: an IP address or a hostname.
    pub gateway_ip: String,
    /// The first port that the master may open on it.
    pub gateway_port_range_start: u16,
    /// The last port that the master may open on it.
    pub gateway_port_range_end: u16,
}
