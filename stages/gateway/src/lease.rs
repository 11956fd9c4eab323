//! The Lease by which a session holds a Gateway: no other session uses that Gateway while the Lease is renewed.
//!
//! It is named after its Gateway, in the Gateway's namespace, so creating it is the mutex. A Gateway of our own names
//! its Lease as owner: when the Lease of a dead session is deleted, Kubernetes collects the Gateway.

use cluster::Cluster;
use cluster::lease::{self, LeaseLock};
use k8s_openapi::api::coordination::v1::Lease;
use kube::ResourceExt;
use protocol::ledger::Entry;
use protocol::{Context, StageError};
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
    /// The identity of the instance.
    pub(crate) holder: String,
    /// Seconds without a renewal after which others may have the Gateway.
    pub(crate) duration: u32,
    /// The same while tasks run; 0 if nothing stays for tasks.
    #[serde(default)]
    pub(crate) keep: u32,
    /// Where the master runs tasks.
    #[serde(default)]
    pub(crate) task_namespace: String,
    /// Whether this session creates the Gateway.
    pub(crate) made: bool,
    /// The GatewayClass of a Gateway that it creates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) class: Option<String>,
    /// Its uid, once the API has confirmed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) uid: Option<String>,
    /// The run that held it before, if it was resumed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) before: Option<String>,
    /// The run that holds it.
    #[serde(skip)]
    pub(crate) run: Option<String>,
    /// For people.
    #[serde(skip)]
    pub(crate) user: String,
}

impl GatewayLease {
    pub(crate) fn from_entry(entry: &Entry) -> Option<Self> {
        Some(Self {
            run: Some(entry.run.clone()),
            ..entry.read(SESSION)?
        })
    }

    /// `None`: the Lease is not for a Gateway.
    pub(crate) fn from_lease(lease: &Lease) -> Option<Self> {
        Some(Self {
            namespace: lease.namespace()?,
            gateway: lease.name_any().strip_prefix(PREFIX)?.to_owned(),
            holder: lease::holder(lease).to_owned(),
            duration: 0,
            keep: 0,
            task_namespace: String::new(),
            class: None,
            uid: lease.uid(),
            before: None,
            run: None,
            user: String::new(),
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
            run: self.run.clone(),
            before: self.before.clone(),
            uid: self.uid.clone(),
            instance: None,
            user: self.user.clone(),
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

/// The user and the instance, for people.
pub(crate) fn user(cx: &Context<Gateway>) -> String {
    let user = cx.env.get("USER").filter(|user| !user.is_empty());
    format!("{}/{}", user.unwrap_or("unknown"), cx.instance)
}
