//! A Gateway of our own: created from a GatewayClass that can open ports, and deleted with everything made for it.

use cluster::Cluster;
use cluster::lease::MANAGED_BY;
use cluster::objects;
use cluster::status;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Service;
use kube::api::{ListParams, PostParams};
use kube::core::DynamicObject;
use kube::{Api, Resource};
use protocol::{PortRange, StageError};
use serde_json::{Value, json};

use crate::lease::{GatewayLease, MANAGER};
use crate::objects::{
    ClassObject, GATEWAYS, GROUP, GatewayObject, SERVICES, TCP_ROUTES, gateways, resource,
};

/// A Gateway needs a listener before Determined adds its own: this one takes an unused port.
const PLACEHOLDER: u16 = 7999;

/// Creates the Gateway, owned by the session's Lease.
pub(crate) async fn make(
    cluster: &Cluster,
    lease: &GatewayLease,
    owner: Option<&Lease>,
    class: &ClassObject,
    range: PortRange,
) -> Result<GatewayObject, StageError> {
    let (client, kind) = (cluster.client.clone(), resource("v1", "Gateway"));
    let api: Api<DynamicObject> = Api::namespaced_with(client, &lease.namespace, &kind);
    let params = PostParams {
        field_manager: Some(MANAGER.to_owned()),
        ..PostParams::default()
    };
    let object = serde_json::from_value(manifest(lease, owner, class, range)).map_err(|error| {
        StageError::internal("our own Gateway is not a valid object").source(&error)
    })?;
    let made = match api.create(&params, &object).await {
        // The answer to a first try was lost, and the client tried again: only we use this name.
        Err(error) if status(&error) == 409 => api.get(&lease.gateway).await,
        made => made,
    };
    let made =
        made.map_err(|error| cluster.failed("create", GATEWAYS, Some(&lease.namespace), &error))?;
    made.try_parse()
        .map_err(|error| StageError::internal("the API returned an invalid Gateway").source(&error))
}

fn manifest(
    lease: &GatewayLease,
    owner: Option<&Lease>,
    class: &ClassObject,
    range: PortRange,
) -> Value {
    let owner = owner.and_then(|lease| lease.owner_ref(&()));
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
            "gatewayClassName": class.metadata.name,
            "listeners": [{
                "name": "devcluster",
                "port": port,
                "protocol": "TCP",
                "allowedRoutes": {"namespaces": {"from": "All"}},
            }],
        },
    })
}

/// Deletes the session's Gateway, whose name is unique. Returns whether it existed.
pub(crate) async fn delete(cluster: &Cluster, lease: &GatewayLease) -> Result<bool, StageError> {
    let gateways = gateways(cluster, Some(&lease.namespace));
    let deleted = objects::delete(&gateways, &lease.gateway, None).await;
    deleted.map_err(|error| cluster.failed("delete", GATEWAYS, Some(&lease.namespace), &error))
}

/// A TCPRoute and a Service of the same name, which Determined makes for each port and removes at a normal end only.
#[derive(Debug, Clone)]
pub(crate) struct Route {
    namespace: String,
    name: String,
    uid: Option<String>,
}

/// The routes of the session's Gateway.
pub(crate) async fn routes(
    cluster: &Cluster,
    lease: &GatewayLease,
) -> Result<Vec<Route>, StageError> {
    let kind = resource("v1alpha2", "TCPRoute");
    let all: Api<DynamicObject> = Api::all_with(cluster.client.clone(), &kind);
    let mut routes = match all.list(&ListParams::default()).await {
        Ok(list) => list.items,
        Err(error) if matches!(status(&error), 403 | 404) => Vec::new(),
        Err(error) => return Err(cluster.failed("list", TCP_ROUTES, None, &error)),
    };
    routes.retain(|it| leads_to(it, lease));
    let route = |DynamicObject { metadata, .. }| {
        Some(Route {
            namespace: metadata.namespace?,
            name: metadata.name?,
            uid: metadata.uid,
        })
    };
    Ok(routes.into_iter().filter_map(route).collect())
}

fn leads_to(route: &DynamicObject, lease: &GatewayLease) -> bool {
    let parents = route.data["spec"]["parentRefs"].as_array();
    parents.into_iter().flatten().any(|parent| {
        let namespace = parent["namespace"]
            .as_str()
            .or(route.metadata.namespace.as_deref());
        parent["name"] == lease.gateway.as_str() && namespace == Some(lease.namespace.as_str())
    })
}

impl Route {
    pub(crate) fn title(&self) -> String {
        format!("TCPRoute and Service {}/{}", self.namespace, self.name)
    }

    pub(crate) async fn delete(self, cluster: &Cluster) -> Result<bool, StageError> {
        let Self {
            namespace,
            name,
            uid,
        } = self;
        let failed = |resource| {
            let namespace = &namespace;
            move |error| cluster.failed("delete", resource, Some(namespace), &error)
        };
        let client = || cluster.client.clone();
        let kind = resource("v1alpha2", "TCPRoute");
        let routes: Api<DynamicObject> = Api::namespaced_with(client(), &namespace, &kind);
        let route = objects::delete(&routes, &name, uid).await;
        let route = route.map_err(failed(TCP_ROUTES))?;
        let services: Api<Service> = Api::namespaced(client(), &namespace);
        let service = objects::delete(&services, &name, None).await;
        Ok(service.map_err(failed(SERVICES))? || route)
    }
}
