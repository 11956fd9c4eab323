//! The Lease by which a session holds a Gateway: no other takes that Gateway while the Lease is renewed.
//!
//! It is named after its Gateway, in the Gateway's namespace, so that making it is the mutex. A Gateway that we made names
//! its Lease as its owner: whoever deletes the Lease of a dead session has Kubernetes collect that Gateway.

use cluster::Cluster;
use cluster::lease::{self, LeaseLock};
use k8s_openapi::api::coordination::v1::Lease;
use kube::ResourceExt;
use protocol::ledger::Entry;
use protocol::{Context, StageError, run_id};
use serde::{Deserialize, Serialize};

use crate::Gateway;

/// The value of the label of everything that we make, and the name of our fields' manager.
pub(crate) const MANAGER: &str = "devcluster-gateway";

/// The word for a session in the ledger.
pub(crate) const SESSION: &str = "session";

/// On a Lease: the Gateway was made by its session, and goes with it.
const MADE: &str = "devcluster-gateway/made";

const PREFIX: &str = "devcluster-gateway-";

/// A session's hold on its Gateway, as the ledger has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GatewayLease {
    pub(crate) namespace: String,
    pub(crate) gateway: String,
    /// No two sessions have the same.
    pub(crate) holder: String,
    /// Seconds.
    pub(crate) duration: u32,
    /// Whether the Gateway is made for this session.
    pub(crate) made: bool,
}

impl GatewayLease {
    pub(crate) fn from_entry(entry: &Entry) -> Option<Self> {
        let data = (entry.what == SESSION).then(|| entry.data.clone());
        serde_json::from_value(data?).ok()
    }

    /// `None`: it is of something else.
    pub(crate) fn from_lease(lease: &Lease) -> Option<Self> {
        Some(Self {
            namespace: lease.namespace()?,
            gateway: lease.name_any().strip_prefix(PREFIX)?.to_owned(),
            holder: lease::holder(lease).to_owned(),
            duration: 0,
            made: lease.annotations().get(MADE).is_some_and(|it| it == "true"),
        })
    }

    /// The Gateway's `namespace/name`.
    pub(crate) fn title(&self) -> String {
        format!("{}/{}", self.namespace, self.gateway)
    }

    pub(crate) fn lease_lock(&self) -> LeaseLock {
        LeaseLock {
            namespace: self.namespace.clone(),
            namespace_field: "gateway_namespace",
            name: format!("{PREFIX}{}", self.gateway),
            holder: self.holder.clone(),
            duration: self.duration,
            manager: MANAGER,
            annotations: vec![(MADE, self.made.to_string())],
        }
    }
}

/// The `namespace/name` of the Gateway that this Lease is for.
pub(crate) fn title(lease: &Lease) -> Option<String> {
    GatewayLease::from_lease(lease).map(|it| it.title())
}

/// Those of all sessions, expired or not; none where they may not be listed: taking one tells in the end.
pub(crate) async fn list(
    cluster: &Cluster,
    namespace: Option<&str>,
) -> Result<Vec<Lease>, StageError> {
    lease::list(cluster, namespace, MANAGER).await
}

/// Whose session it is, for people, and which one, for us.
pub(crate) fn holder(cx: &Context<Gateway>) -> String {
    let user = cx.env.get("USER").filter(|user| !user.is_empty());
    let user = user.unwrap_or("somebody");
    format!("{user}/{}/{}", cx.instance, run_id())
}
