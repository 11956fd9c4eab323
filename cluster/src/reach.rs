//! The way to a cluster, as a ledger keeps it.

use std::path::PathBuf;

use protocol::ledger::Entry;
use protocol::{Env, StageError};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::client::{Cluster, Patience};
use crate::kubeconfig;
use crate::minify::minify;

/// There is no way to the cluster any more.
const GONE: [&str; 2] = ["gateway.kubeconfig_missing", "gateway.context_unknown"];

/// Which cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Way {
    pub kubeconfig: Vec<PathBuf>,
    pub context: String,
}

impl Way {
    pub fn of(entry: &Entry) -> Option<Self> {
        serde_json::from_value(entry.data.clone()).ok()
    }

    pub fn data(&self) -> Result<Value, StageError> {
        serde_json::to_value(self).map_err(|error| {
            StageError::internal("the way to a cluster cannot be written").source(&error)
        })
    }
}

/// `None`: the user has done away with the cluster. If it is there still, what we had there expires, and others collect it.
pub async fn cluster(way: &Way, env: &Env) -> Result<Option<Cluster>, StageError> {
    let kubeconfig = kubeconfig::load_files(&way.kubeconfig);
    let minified = match kubeconfig.and_then(|it| minify(&it, Some(&way.context))) {
        Ok(minified) => minified,
        Err(error) if GONE.contains(&error.code.as_str()) => return Ok(None),
        Err(error) => return Err(error),
    };
    let patience = Patience::default();
    Cluster::connect(&minified, patience, env).await.map(Some)
}
