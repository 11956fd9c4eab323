//! A Gateway of our own: created from a GatewayClass that can open ports, and owned by the Lease of its session.

use std::time::Duration;

use cluster::Cluster;
use cluster::lease::MANAGED_BY;
use cluster::ours::Ours;
use cluster::status;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::PostParams;
use kube::core::DynamicObject;
use kube::{Api, Resource, ResourceExt};
use protocol::{PortRange, StageError};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::codes;
use crate::lease::{GatewayLease, MANAGER};
use crate::objects::{GATEWAYS, GROUP, GatewayObject, resource};

/// How long the Gateway of an earlier session may take to go.
const DELETION_TIMEOUT: Duration = Duration::from_secs(20);
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// A Gateway needs a listener before Determined adds its own: this one takes an unused port.
const PLACEHOLDER: u16 = 7999;

/// Creates the Gateway, owned by the session's Lease.
pub(crate) async fn make(
    cluster: &Cluster,
    lease: &GatewayLease,
    owner: &Lease,
    class: &str,
    range: PortRange,
) -> Result<GatewayObject, StageError> {
    let uid = owner.uid();
    let api = whole(cluster, lease);
    let params = PostParams {
        field_manager: Some(MANAGER.to_owned()),
        ..PostParams::default()
    };
    let object = serde_json::from_value(manifest(lease, owner, class, range)).map_err(|error| {
        StageError::internal("our own Gateway is not a valid object").source(&error)
    })?;
    let failed = |verb| move |error| cluster.failed(verb, GATEWAYS, Some(&lease.namespace), &error);
    let deadline = Instant::now() + DELETION_TIMEOUT;
    loop {
        let made = match api.create(&params, &object).await {
            Err(error) if status(&error) == 409 => {
                api.get_opt(&lease.gateway).await.map_err(failed("get"))?
            }
            made => Some(made.map_err(failed("create"))?),
        };
        let is_ours = |it: &DynamicObject| uid.as_ref().is_some_and(|uid| ours(uid).includes(it));
        if let Some(made) = made.filter(is_ours) {
            return made.try_parse().map_err(|error| {
                StageError::internal("the API returned an invalid Gateway").source(&error)
            });
        }
        // That of our last session is still being deleted.
        if Instant::now() > deadline {
            let title = lease.title();
            let message = format!("there is a Gateway {title}, which this session did not create");
            return Err(StageError::new(codes::NAME_IN_USE, message));
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

fn manifest(lease: &GatewayLease, owner: &Lease, class: &str, range: PortRange) -> Value {
    let owner = owner.owner_ref(&());
    let port = match range.contains(PLACEHOLDER) {
        true => range.last,
        false => PLACEHOLDER,
    };
    json!({
        "apiVersion": format!("{GROUP}/v1"),
        "kind": "Gateway",
        "metadata": {
            "name": lease.gateway,
            "namespace": lease.namespace,
            "labels": {MANAGED_BY: MANAGER},
            "annotations": {"devcluster-gateway/session": lease.holder},
            "ownerReferences": Vec::from_iter(owner),
        },
        "spec": {
            "gatewayClassName": class,
            "listeners": [{
                "name": "devcluster",
                "port": port,
                "protocol": "TCP",
                "allowedRoutes": {"namespaces": {"from": "All"}},
            }],
        },
    })
}

/// With every field, also those that we do not know.
fn whole(cluster: &Cluster, lease: &GatewayLease) -> Api<DynamicObject> {
    let kind = resource("v1", "Gateway");
    Api::namespaced_with(cluster.client.clone(), &lease.namespace, &kind)
}

/// What a Gateway of this session carries.
fn ours(session: &str) -> Ours<'_> {
    Ours {
        mark: (MANAGED_BY, MANAGER),
        session: Some(session),
    }
}

/// Deletes the Gateway that the session with this Lease made. Returns whether it existed.
pub(crate) async fn delete(
    cluster: &Cluster,
    lease: &GatewayLease,
    session: &Lease,
) -> Result<bool, StageError> {
    let Some(uid) = session.uid() else {
        return Ok(false);
    };
    let deleted = cluster::ours::delete(&whole(cluster, lease), &lease.gateway, ours(&uid)).await;
    deleted.map_err(|error| cluster.failed("delete", GATEWAYS, Some(&lease.namespace), &error))
}

/// Keeps the Gateway that the session with this Lease made, beyond the Lease.
pub(crate) async fn keep(
    cluster: &Cluster,
    lease: &GatewayLease,
    session: &Lease,
) -> Result<(), StageError> {
    let Some(uid) = session.uid() else {
        return Ok(());
    };
    let kept = cluster::ours::disown(&whole(cluster, lease), &lease.gateway, ours(&uid)).await;
    kept.map_err(|error| cluster.failed("update", GATEWAYS, Some(&lease.namespace), &error))
}
