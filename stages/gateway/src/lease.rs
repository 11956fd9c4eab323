//! The Lease by which a session holds a Gateway: no other session uses that Gateway while the Lease is renewed.
//!
//! It is named after its Gateway, in the Gateway's namespace, so creating it is the mutex. A Gateway of our own names
//! its Lease as owner: when the Lease of a dead session is deleted, Kubernetes collects the Gateway.

use cluster::Cluster;
use cluster::lease::{self, LeaseLock};
use k8s_openapi::api::coordination::v1::Lease;
use kube::ResourceExt;
use protocol::ledger::Entry;
use protocol::{Context, StageError, run_id};
use serde::{Deserialize, Serialize};

use crate::Gateway;

/// The value of the managed-by label on our objects, and the name of our field manager.
pub(crate) const MANAGER: &str = "devcluster-gateway";

/// The ledger's kind of entry for a session.
pub(crate) const SESSION: &str = "session";

/// Annotation of a Lease: its session created the Gateway, which is deleted with it.
const MADE: &str = "devcluster-gateway/made";

const PREFIX: &str = "devcluster-gateway-";

/// A session's Lease on a Gateway, as the ledger stores it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GatewayLease {
    pub(crate) namespace: String,
    pub(crate) gateway: String,
    /// Unique to a session.
    pub(crate) holder: String,
    /// Seconds.
    pub(crate) duration: u32,
    /// Whether this session creates the Gateway.
    pub(crate) made: bool,
}

impl GatewayLease {
    pub(crate) fn from_entry(entry: &Entry) -> Option<Self> {
        let data = (entry.what == SESSION).then(|| entry.data.clone());
        serde_json::from_value(data?).ok()
    }

    /// `None`: the Lease is not for a Gateway.
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

/// `namespace/name` of the Gateway that this Lease is for.
pub(crate) fn title(lease: &Lease) -> Option<String> {
    GatewayLease::from_lease(lease).map(|it| it.title())
}

/// The Leases of all sessions, expired or not. Empty if the user may not list them: acquiring one will show a conflict.
pub(crate) async fn list(
    cluster: &Cluster,
    namespace: Option<&str>,
) -> Result<Vec<Lease>, StageError> {
    lease::list(cluster, namespace, MANAGER).await
}

/// The holder's identity: the user for people, the instance and run for us.
pub(crate) fn holder(cx: &Context<Gateway>) -> String {
    let user = cx.env.get("USER").filter(|user| !user.is_empty());
    let user = user.unwrap_or("unknown");
    format!("{user}/{}/{}", cx.instance, run_id())
}
