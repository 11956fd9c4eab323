//! A Gateway of our own: made from a GatewayClass that can open ports, and deleted with all that came of it.

use cluster::client::Cluster;
use cluster::fault::{self, Attempt};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Api;
use kube::api::{DeleteParams, ListParams, PostParams, Preconditions};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use protocol::StageError;
use serde_json::{Value, json};

use crate::children;
use crate::lease::{Claim, MANAGED_BY, MANAGER};
use crate::objects::{ClassObject, GROUP, GatewayObject, gateway_resource, gateways, refusal};
use crate::ports::PortRange;
use crate::provision;
use crate::session::Session;
use crate::survey::{GATEWAYS, Wanted};

/// The controller that is installed by default.
pub(crate) const CONTOUR: &str = "projectcontour.io/gateway-controller";

/// Controllers that open whatever TCP port a Gateway asks for, best known first.
const DYNAMIC: [&str; 2] = [CONTOUR, "gateway.envoyproxy.io/gatewayclass-controller"];

/// A Gateway has to have a listener before Determined adds its own: one port that nobody uses.
const PLACEHOLDER: u16 = 7999;

/// What every controller puts on what it makes for a Gateway.
pub(crate) const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";

const SERVICES: &str = "services";
const TCP_ROUTES: &str = "tcproutes.gateway.networking.k8s.io";

/// The class to make one of, or why there is none, a line for each.
pub(crate) fn class<'a>(
    classes: Option<&'a [ClassObject]>,
    wanted: &Wanted,
) -> Result<&'a ClassObject, Vec<String>> {
    let Some(classes) = classes else {
        return Err(vec!["GatewayClasses may not be listed".to_owned()]);
    };
    let mut reasons = Vec::new();
    let mut usable = Vec::new();
    for class in classes {
        match unsuitable(class, wanted) {
            None => usable.push(class),
            Some(reason) => {
                let name = class.metadata.name.as_deref().unwrap_or_default();
                reasons.push(format!(
                    "GatewayClass {name}: no Gateway is made of it: {reason}"
                ));
            }
        }
    }
    let rank = |class: &ClassObject| {
        let known = |name: &&str| **name == class.spec.controller_name;
        (DYNAMIC.iter().position(known), class.metadata.name.clone())
    };
    usable
        .into_iter()
        .min_by_key(|class| rank(class))
        .ok_or(reasons)
}

fn unsuitable(class: &ClassObject, wanted: &Wanted) -> Option<String> {
    let controller = &class.spec.controller_name;
    if wanted.class.is_some() && wanted.class != class.metadata.name {
        return Some("`gateway_class` names another".to_owned());
    }
    let conditions = class.status.as_ref().map(|status| &status.conditions);
    let accepted = conditions.is_some_and(|conditions| {
        crate::objects::find(conditions, "Accepted").is_some_and(|it| it.status == "True")
    });
    if !accepted {
        let why = conditions.and_then(|conditions| refusal(conditions, "Accepted"));
        return Some(
            why.unwrap_or_else(|| format!("its controller {controller} has not accepted it")),
        );
    }
    // Who names a class, or the controller that we installed, knows what it can do.
    if wanted.class.is_none()
        && !provision::is_ours(class)
        && !DYNAMIC.contains(&controller.as_str())
    {
        return Some(format!(
            "{controller} is not known to open ports by itself; `gateway_class` takes it all the same"
        ));
    }
    None
}

/// Makes the Gateway that the session's Lease owns.
pub(crate) async fn make(
    cluster: &Cluster,
    session: &Session,
    class: &ClassObject,
    range: PortRange,
) -> Result<GatewayObject, StageError> {
    let claim = &session.claim;
    let manifest = manifest(session, class, range);
    let api: Api<DynamicObject> = Api::namespaced_with(
        cluster.client.clone(),
        &claim.namespace,
        &gateway_resource(),
    );
    let params = PostParams {
        field_manager: Some(MANAGER.to_owned()),
        ..PostParams::default()
    };
    let attempt = |verb| Attempt::new(verb, GATEWAYS, Some(&claim.namespace));
    let object = serde_json::from_value(manifest)
        .map_err(|error| StageError::internal("our own Gateway is no object").source(&error))?;
    let made = match api.create(&params, &object).await {
        // The answer to a first try was lost, and the client tried again: the name is ours alone.
        Err(kube::Error::Api(status)) if status.code == 409 => api.get(&claim.gateway).await,
        made => made,
    };
    let made =
        made.map_err(|error| fault::of_request(&cluster.peer, &attempt("create"), &error))?;
    serde_json::to_value(made)
        .and_then(serde_json::from_value)
        .map_err(|error| StageError::internal("the API's Gateway is none").source(&error))
}

fn manifest(session: &Session, class: &ClassObject, range: PortRange) -> Value {
    let claim = &session.claim;
    let owner = session.lease.as_ref().map(|lease| OwnerReference {
        api_version: "coordination.k8s.io/v1".to_owned(),
        kind: "Lease".to_owned(),
        name: lease.metadata.name.clone().unwrap_or_default(),
        uid: lease.metadata.uid.clone().unwrap_or_default(),
        ..OwnerReference::default()
    });
    let port = if range.holds(PLACEHOLDER) {
        range.end
    } else {
        PLACEHOLDER
    };
    json!({
        "apiVersion": format!("{GROUP}/v1"),
        "kind": "Gateway",
        "metadata": {
            "name": claim.gateway,
            "namespace": claim.namespace,
            "labels": {MANAGED_BY: MANAGER},
            "annotations": {"devcluster-gateway/session": claim.holder},
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

/// Deletes the Gateway of this claim, whose name no other ever had. Whether there was one.
pub(crate) async fn delete(cluster: &Cluster, claim: &Claim) -> Result<bool, StageError> {
    let gateways = gateways(cluster, Some(&claim.namespace));
    match gateways
        .delete(&claim.gateway, &DeleteParams::default())
        .await
    {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(false),
        Err(error) => {
            let attempt = Attempt::new("delete", GATEWAYS, Some(&claim.namespace));
            Err(fault::of_request(&cluster.peer, &attempt, &error))
        }
    }
}

/// Removes what Determined left on the deleted Gateway, and sees that its controller has removed the rest.
pub(crate) async fn sweep(cluster: &Cluster, claim: &Claim) -> Result<Vec<String>, StageError> {
    let mut removed = sweep_routes(cluster, claim).await?;
    removed.extend(children::sweep(cluster, claim).await?);
    Ok(removed)
}

/// What [`sweep`] would find.
pub(crate) async fn left(cluster: &Cluster, claim: &Claim) -> Result<Vec<String>, StageError> {
    let routes = routes(cluster, &tcp_routes(), claim).await?;
    let mut left: Vec<String> = routes.iter().filter_map(route_title).collect();
    left.extend(children::left(cluster, claim).await?);
    Ok(left)
}

fn tcp_routes() -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk(GROUP, "v1alpha2", "TCPRoute"))
}

/// Those that lead to the Gateway.
async fn routes(
    cluster: &Cluster,
    resource: &ApiResource,
    claim: &Claim,
) -> Result<Vec<DynamicObject>, StageError> {
    let all: Api<DynamicObject> = Api::all_with(cluster.client.clone(), resource);
    let mut routes = match all.list(&ListParams::default()).await {
        Ok(list) => list.items,
        Err(kube::Error::Api(status)) if matches!(status.code, 403 | 404) => Vec::new(),
        Err(error) => {
            let attempt = Attempt::new("list", TCP_ROUTES, None);
            return Err(fault::of_request(&cluster.peer, &attempt, &error));
        }
    };
    routes.retain(|route| leads_to(route, claim));
    Ok(routes)
}

fn route_title(route: &DynamicObject) -> Option<String> {
    let metadata = &route.metadata;
    let (namespace, name) = (metadata.namespace.as_ref()?, metadata.name.as_ref()?);
    Some(format!("TCPRoute and Service {namespace}/{name}"))
}

/// Determined makes a TCPRoute and a Service of the same name for each port; only a task's normal end removes them.
async fn sweep_routes(cluster: &Cluster, claim: &Claim) -> Result<Vec<String>, StageError> {
    let resource = tcp_routes();
    let mut removed = Vec::new();
    for route in routes(cluster, &resource, claim).await? {
        let (Some(name), Some(namespace)) = (&route.metadata.name, &route.metadata.namespace)
        else {
            continue;
        };
        let exactly = DeleteParams {
            preconditions: Some(Preconditions {
                uid: route.metadata.uid.clone(),
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        let routes: Api<DynamicObject> =
            Api::namespaced_with(cluster.client.clone(), namespace, &resource);
        gone(
            cluster,
            TCP_ROUTES,
            namespace,
            routes.delete(name, &exactly).await.map(drop),
        )?;
        let services: Api<Service> = Api::namespaced(cluster.client.clone(), namespace);
        let service = services
            .delete(name, &DeleteParams::default())
            .await
            .map(drop);
        gone(cluster, SERVICES, namespace, service)?;
        removed.extend(route_title(&route));
    }
    Ok(removed)
}

fn leads_to(route: &DynamicObject, claim: &Claim) -> bool {
    let parents = route.data["spec"]["parentRefs"].as_array();
    parents.into_iter().flatten().any(|parent| {
        let namespace = parent["namespace"]
            .as_str()
            .or(route.metadata.namespace.as_deref());
        parent["name"] == claim.gateway.as_str() && namespace == Some(claim.namespace.as_str())
    })
}

fn gone(
    cluster: &Cluster,
    resource: &'static str,
    namespace: &str,
    answer: Result<(), kube::Error>,
) -> Result<(), StageError> {
    match answer {
        Ok(()) => Ok(()),
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        Err(error) => {
            let attempt = Attempt::new("delete", resource, Some(namespace));
            Err(fault::of_request(&cluster.peer, &attempt, &error))
        }
    }
}
