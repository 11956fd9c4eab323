//! The outputs of a gateway stage.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The outputs of a gateway stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Outputs {
    /// The block for the master's Kubernetes resource manager.
    pub internal_task_gateway: InternalTaskGateway,
    /// A kubeconfig with the chosen context alone, for that resource manager. Removed when the stage ends.
    pub kubeconfig_path: PathBuf,
    /// The chosen context.
    pub context: String,
    /// The controller of the Gateway's class; null if the user may not read the class.
    pub controller: Option<String>,
    /// How many ports the master could open when the Gateway was ready.
    pub capacity: u32,
    /// Whether this stage installed the controller.
    pub provisioned: bool,
}

/// Determined's `internal_task_gateway`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct InternalTaskGateway {
    /// The Gateway's name.
    pub gateway_name: String,
    /// The Gateway's namespace.
    pub gateway_namespace: String,
    /// The address by which the master reaches the Gateway: an IP address or a hostname.
    pub gateway_ip: String,
    /// The first port that the master may open on the Gateway.
    pub gateway_port_range_start: u16,
    /// The last port that the master may open on the Gateway.
    pub gateway_port_range_end: u16,
}
