//! The objects that a controller made for a Gateway of ours. The controller removes them after the Gateway is deleted;
//! if it does not run, we do.

use std::time::Duration;

use cluster::objects::{self, ApiKind, Discovery, ObjectRef};
use cluster::{Cluster, status};
use kube::api::ListParams;
use protocol::StageError;
use tokio::time::Instant;

use crate::lease::GatewayLease;
use crate::objects::GATEWAY_NAME;

/// How long the controller may take.
const CONTROLLER_TIMEOUT: Duration = Duration::from_secs(20);
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// Kinds that run or cost something; while one exists, the others may too.
const RUNNING: [(&str, &str); 3] = [
    ("v1", "Service"),
    ("apps/v1", "Deployment"),
    ("apps/v1", "DaemonSet"),
];

const REST: [(&str, &str); 8] = [
    ("v1", "ConfigMap"),
    ("v1", "Secret"),
    ("v1", "ServiceAccount"),
    ("rbac.authorization.k8s.io/v1", "RoleBinding"),
    ("rbac.authorization.k8s.io/v1", "Role"),
    ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding"),
    ("rbac.authorization.k8s.io/v1", "ClusterRole"),
    ("projectcontour.io/v1alpha1", "ContourConfiguration"),
];

/// Their titles, for messages.
pub(crate) async fn titles(
    cluster: &Cluster,
    lease: &GatewayLease,
) -> Result<Vec<String>, StageError> {
    let all = list(&mut Discovery::new(cluster), lease, true).await?;
    Ok(all.iter().map(|it| it.reference.title()).collect())
}

/// Waits until the controller has removed them, else removes them. Returns true in the second case.
pub(crate) async fn remove(cluster: &Cluster, lease: &GatewayLease) -> Result<bool, StageError> {
    let deadline = Instant::now() + CONTROLLER_TIMEOUT;
    let mut discovery = Discovery::new(cluster);
    while Instant::now() < deadline {
        if list(&mut discovery, lease, false).await?.is_empty() {
            return Ok(false);
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    let children = list(&mut discovery, lease, true).await?;
    for child in &children {
        child.delete(lease).await?;
    }
    Ok(!children.is_empty())
}

struct ControllerObject {
    kind: ApiKind,
    reference: ObjectRef,
    uid: Option<String>,
}

/// Controllers label their objects with the Gateway's name, and ours is unique.
async fn list(
    discovery: &mut Discovery<'_>,
    lease: &GatewayLease,
    with_rest: bool,
) -> Result<Vec<ControllerObject>, StageError> {
    let labelled = ListParams::default().labels(&format!("{GATEWAY_NAME}={}", lease.gateway));
    let rest: &[_] = if with_rest { &REST } else { &[] };
    let mut children = Vec::new();
    for (api_version, kind) in RUNNING.iter().chain(rest) {
        let any = ObjectRef::from_kind(api_version, kind, &lease.namespace);
        let Some(kind) = discovery.kind(&any).await? else {
            continue;
        };
        let listed = match kind.api(&any).list_metadata(&labelled).await {
            Ok(list) => list.items,
            // The user may not see these.
            Err(error) if status(&error) == 403 => continue,
            Err(error) => return Err(kind.failed("list", &any, &error)),
        };
        children.extend(listed.into_iter().map(|it| ControllerObject {
            kind: kind.clone(),
            reference: ObjectRef {
                namespace: it.metadata.namespace,
                name: it.metadata.name.unwrap_or_default(),
                ..any.clone()
            },
            uid: it.metadata.uid,
        }));
    }
    Ok(children)
}

impl ControllerObject {
    async fn delete(&self, lease: &GatewayLease) -> Result<(), StageError> {
        let api = self.kind.api(&self.reference);
        let deleted = objects::delete(&api, &self.reference.name, self.uid.clone()).await;
        deleted.map(drop).map_err(|error| {
            let message = format!(
                "Gateway {} is deleted, but its controller has not removed {}",
                lease.title(),
                self.reference.title()
            );
            self.kind
                .failed("delete", &self.reference, &error)
                .cause(message)
        })
    }
}
