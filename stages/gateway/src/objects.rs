//! The fields of Kubernetes objects that we read. Never written back: other fields would be lost.

use std::collections::BTreeSet;

use cluster::Cluster;
use kube::core::{ApiResource, GroupVersionKind, Object};
use kube::{Api, ResourceExt};
use protocol::{Code, PortRange, StageError};
use serde::{Deserialize, Serialize};

use crate::codes;

pub(crate) const GROUP: &str = "gateway.networking.k8s.io";

pub(crate) const GATEWAYS: &str = "gateways.gateway.networking.k8s.io";
pub(crate) const CLASSES: &str = "gatewayclasses.gateway.networking.k8s.io";
pub(crate) const TCP_ROUTES: &str = "tcproutes.gateway.networking.k8s.io";
pub(crate) const SERVICES: &str = "services";

/// The label that controllers put on what they make for a Gateway.
pub(crate) const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";

/// The label of everything that was installed with a controller: the id of that installation.
pub(crate) const INSTALLED: &str = "devcluster-gateway/infrastructure";

/// Annotation of a Gateway for each port that a Determined master opened.
const PORT_ANNOTATION: &str = "determined.ai/det-gateway-port-";

pub(crate) type GatewayObject = Object<GatewaySpec, GatewayStatus>;
pub(crate) type ClassObject = Object<ClassSpec, ClassStatus>;

/// A kind of the Gateway API.
pub(crate) fn resource(version: &str, kind: &str) -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk(GROUP, version, kind))
}

pub(crate) fn gateways(cluster: &Cluster, namespace: Option<&str>) -> Api<GatewayObject> {
    let (client, kind) = (cluster.client.clone(), resource("v1", "Gateway"));
    match namespace {
        Some(namespace) => Api::namespaced_with(client, namespace, &kind),
        None => Api::all_with(client, &kind),
    }
}

/// `None`: there is no such Gateway.
pub(crate) async fn gateway(
    cluster: &Cluster,
    namespace: &str,
    name: &str,
) -> Result<Option<GatewayObject>, StageError> {
    let gateway = gateways(cluster, Some(namespace)).get_opt(name).await;
    gateway.map_err(|error| cluster.failed("get", GATEWAYS, Some(namespace), &error))
}

pub(crate) fn classes(cluster: &Cluster) -> Api<ClassObject> {
    Api::all_with(cluster.client.clone(), &resource("v1", "GatewayClass"))
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct GatewaySpec {
    pub(crate) gateway_class_name: String,
    #[serde(default)]
    pub(crate) listeners: Vec<Listener>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Listener {
    pub(crate) port: u16,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct GatewayStatus {
    pub(crate) addresses: Vec<Address>,
    pub(crate) conditions: Vec<Condition>,
    pub(crate) listeners: Vec<ListenerStatus>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Address {
    #[serde(rename = "type")]
    pub(crate) kind: Option<String>,
    pub(crate) value: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Condition {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) status: String,
    #[serde(default)]
    pub(crate) reason: String,
    #[serde(default)]
    pub(crate) message: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ListenerStatus {
    #[serde(default)]
    pub(crate) supported_kinds: Vec<RouteKind>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RouteKind {
    pub(crate) kind: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ClassSpec {
    pub(crate) controller_name: String,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct ClassStatus {
    #[serde(default)]
    pub(crate) conditions: Vec<Condition>,
}

/// Whether this annotation is for a port of a Determined master.
pub(crate) fn is_port(key: &str) -> bool {
    key.starts_with(PORT_ANNOTATION)
}

/// Why a Gateway is not ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NotReady {
    pub(crate) code: &'static Code,
    pub(crate) reason: String,
}

/// The address of a ready Gateway.
pub(crate) fn address(gateway: &GatewayObject) -> Result<String, NotReady> {
    let empty = GatewayStatus::default();
    let status = gateway.status.as_ref().unwrap_or(&empty);
    let not_programmed = |reason| {
        Err(NotReady {
            code: codes::NOT_PROGRAMMED,
            reason,
        })
    };
    if let Some(reason) = why_false(&status.conditions, "Accepted") {
        return not_programmed(reason);
    }
    match find_condition(&status.conditions, "Programmed") {
        Some(condition) if condition.status == "True" => usable_address(&status.addresses),
        Some(condition) => not_programmed(condition.describe()),
        None => not_programmed("no controller has reported on it".to_owned()),
    }
}

/// Determined accepts an IP address or a hostname as `gateway_ip`. The default type of an address is IPAddress.
fn usable_address(addresses: &[Address]) -> Result<String, NotReady> {
    let usable = |address: &&Address| {
        let kind = address.kind.as_deref().unwrap_or("IPAddress");
        matches!(kind, "IPAddress" | "Hostname") && !address.value.is_empty()
    };
    if let Some(address) = addresses.iter().find(usable) {
        return Ok(address.value.clone());
    }
    let reason = addresses.first().map(|Address { kind, value }| {
        let kind = kind.as_deref().unwrap_or_default();
        format!("its address {value:?} is a {kind}, neither IPAddress nor Hostname")
    });
    Err(NotReady {
        code: codes::NO_ADDRESS,
        reason: reason.unwrap_or_else(|| "it has no address".to_owned()),
    })
}

fn find_condition<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.kind == kind)
}

/// Why this condition is False; `None` if it is True or unknown.
pub(crate) fn why_false(conditions: &[Condition], kind: &str) -> Option<String> {
    find_condition(conditions, kind)
        .filter(|condition| condition.status == "False")
        .map(Condition::describe)
}

impl Condition {
    pub(crate) fn describe(&self) -> String {
        let Self {
            kind,
            status,
            reason,
            message,
        } = self;
        if message.is_empty() {
            format!("{kind} is {status} ({reason})")
        } else {
            format!("{kind} is {status} ({reason}: {message})")
        }
    }
}

/// Whether its controller has seen it.
pub(crate) fn is_seen(gateway: &GatewayObject) -> bool {
    let conditions = gateway.status.iter().flat_map(|status| &status.conditions);
    let mut known = conditions.filter(|it| it.kind == "Accepted" && it.status != "Unknown");
    known.next().is_some()
}

/// Whether the controller reports that it accepts TCPRoutes; `None` if it reports no listener.
pub(crate) fn takes_tcp(gateway: &GatewayObject) -> Option<bool> {
    let listeners = &gateway.status.as_ref()?.listeners;
    let mut kinds = listeners
        .iter()
        .flat_map(|listener| &listener.supported_kinds);
    (!listeners.is_empty()).then(|| kinds.any(|kind| kind.kind == "TCPRoute"))
}

/// The ports of Determined masters on it, live or dead, each with its allocation id.
pub(crate) fn determined_ports(gateway: &GatewayObject) -> impl Iterator<Item = (&str, &str)> {
    let annotations = gateway.metadata.annotations.iter().flatten();
    annotations.filter_map(|(key, id)| Some((key.strip_prefix(PORT_ANNOTATION)?, id.as_str())))
}

/// The allocations that have ports on it.
pub(crate) fn allocations(gateway: &GatewayObject) -> BTreeSet<String> {
    determined_ports(gateway)
        .map(|(_, id)| id.to_owned())
        .collect()
}

/// `namespace/name`
pub(crate) fn title(gateway: &GatewayObject) -> String {
    format!("{}/{}", namespace(gateway), name(gateway))
}

pub(crate) fn name(gateway: &GatewayObject) -> &str {
    gateway.metadata.name.as_deref().unwrap_or_default()
}

pub(crate) fn namespace(gateway: &GatewayObject) -> &str {
    gateway.metadata.namespace.as_deref().unwrap_or_default()
}

/// How many listeners can be added: limited by entries on the Gateway and by free ports in the range.
pub(crate) fn capacity(gateway: &GatewayObject, max_listeners: u32, range: PortRange) -> u32 {
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let listeners = &gateway.spec.listeners;
    let inside = listeners
        .iter()
        .filter(|it| range.contains(it.port))
        .count();
    max_listeners
        .saturating_sub(count(listeners.len()))
        .min(range.count().saturating_sub(count(inside)))
}

/// Whether the controller of this class has accepted it.
pub(crate) fn is_accepted(class: &ClassObject) -> bool {
    let mut conditions = class.status.iter().flat_map(|status| &status.conditions);
    let accepted = conditions.any(|it| it.kind == "Accepted" && it.status == "True");
    accepted && class.metadata.deletion_timestamp.is_none()
}

/// Whether devcluster-gateway installed the controller of this class.
pub(crate) fn is_installed(class: &ClassObject) -> bool {
    install_mark(class).is_some()
}

/// The installation that an object belongs to, by its label.
pub(crate) fn install_mark(object: &impl ResourceExt) -> Option<&str> {
    object.labels().get(INSTALLED).map(String::as_str)
}

/// Whether the text is valid as a label value in Kubernetes and as a name in Determined.
pub(crate) fn is_label(text: &str) -> bool {
    let is_inner = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    text.len() <= 63
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.ends_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(is_inner)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn capacity_is_bounded_by_listeners_and_by_ports() {
        let gateway = serde_json::from_value(json!({
            "metadata": {"namespace": "n", "name": "g"},
            "spec": {"gatewayClassName": "c", "listeners": [{"port": 80}, {"port": 9000}, {"port": 9001}]},
        }))
        .unwrap();
        let capacity = |limit, last| capacity(&gateway, limit, PortRange { first: 9000, last });
        assert_eq!(capacity(64, 9999), 61);
        assert_eq!(capacity(64, 9004), 3);
        assert_eq!(capacity(2, 9999), 0);
    }

    #[test]
    fn an_address_of_type_named_address_is_not_usable_for_determined() {
        let gateway = serde_json::from_value(json!({
            "metadata": {"namespace": "n", "name": "g"},
            "spec": {"gatewayClassName": "c"},
            "status": {
                "addresses": [{"type": "NamedAddress", "value": "pool"}],
                "conditions": [{"type": "Programmed", "status": "True"}],
            },
        }))
        .unwrap();
        let why = address(&gateway).unwrap_err();
        assert!(why.reason.contains("\"pool\" is a NamedAddress"), "{why:?}");
    }
}
