//! The parts of Kubernetes objects that are read here. They are never written back: what they leave out would be lost.

use cluster::Cluster;
use kube::Api;
use kube::core::{ApiResource, GroupVersionKind, Object};
use protocol::PortRange;
use serde::{Deserialize, Serialize};

pub(crate) const GROUP: &str = "gateway.networking.k8s.io";

pub(crate) const GATEWAYS: &str = "gateways.gateway.networking.k8s.io";
pub(crate) const CLASSES: &str = "gatewayclasses.gateway.networking.k8s.io";
pub(crate) const TCP_ROUTES: &str = "tcproutes.gateway.networking.k8s.io";
pub(crate) const SERVICES: &str = "services";

/// What every controller puts on what it makes for a Gateway.
pub(crate) const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";

/// On everything that was installed with a controller: which installing it belongs to.
pub(crate) const INSTALLED: &str = "devcluster-gateway/infrastructure";

/// On a Gateway, one for each port that a Determined master has opened.
const PORT_ANNOTATION: &str = "determined.ai/det-gateway-port-";

pub(crate) type GatewayObject = Object<GatewaySpec, GatewayStatus>;
pub(crate) type ClassObject = Object<ClassSpec, ClassStatus>;

pub(crate) fn gateway_resource() -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk(GROUP, "v1", "Gateway"))
}

pub(crate) fn class_resource() -> ApiResource {
    ApiResource::from_gvk_with_plural(
        &GroupVersionKind::gvk(GROUP, "v1", "GatewayClass"),
        "gatewayclasses",
    )
}

pub(crate) fn gateways(cluster: &Cluster, namespace: Option<&str>) -> Api<GatewayObject> {
    match namespace {
        Some(namespace) => {
            Api::namespaced_with(cluster.client.clone(), namespace, &gateway_resource())
        }
        None => Api::all_with(cluster.client.clone(), &gateway_resource()),
    }
}

pub(crate) fn classes(cluster: &Cluster) -> Api<ClassObject> {
    Api::all_with(cluster.client.clone(), &class_resource())
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
pub(crate) struct GatewayStatus {
    #[serde(default)]
    pub(crate) addresses: Vec<Address>,
    #[serde(default)]
    pub(crate) conditions: Vec<Condition>,
    #[serde(default)]
    pub(crate) listeners: Vec<ListenerStatus>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Address {
    #[serde(rename = "type", default)]
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

/// Whether this annotation stands for a port of a Determined master.
pub(crate) fn is_port(key: &str) -> bool {
    key.starts_with(PORT_ANNOTATION)
}

/// How far the controller has come with a Gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum State {
    /// It works, at this address.
    Ready(String),
    /// It is Programmed, but the outside has no way in yet. The text says what there is instead.
    NoAddress(String),
    /// It is not Programmed; the text says why.
    NotProgrammed(String),
}

pub(crate) fn state(gateway: &GatewayObject) -> State {
    let empty = GatewayStatus::default();
    let status = gateway.status.as_ref().unwrap_or(&empty);
    let programmed = find(&status.conditions, "Programmed");
    if let Some(reason) = refusal(&status.conditions, "Accepted") {
        return State::NotProgrammed(reason);
    }
    match programmed {
        Some(condition) if condition.status == "True" => address(&status.addresses),
        Some(condition) => State::NotProgrammed(condition.describe()),
        None => State::NotProgrammed("no controller has reported on it".to_owned()),
    }
}

/// Determined takes an IP address or a hostname as `gateway_ip`. An address without a type is an IP address.
fn address(addresses: &[Address]) -> State {
    let usable = |address: &&Address| {
        let kind = address.kind.as_deref().unwrap_or("IPAddress");
        matches!(kind, "IPAddress" | "Hostname") && !address.value.is_empty()
    };
    match (addresses.iter().find(usable), addresses.first()) {
        (Some(address), _) => State::Ready(address.value.clone()),
        (None, Some(other)) => {
            let kind = other.kind.as_deref().unwrap_or_default();
            State::NoAddress(format!(
                "its address {:?} is a {kind}, neither IPAddress nor Hostname",
                other.value
            ))
        }
        (None, None) => State::NoAddress("it has no address".to_owned()),
    }
}

pub(crate) fn find<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.kind == kind)
}

/// Why this condition is False; `None` while it is True or not known yet.
pub(crate) fn refusal(conditions: &[Condition], kind: &str) -> Option<String> {
    find(conditions, kind)
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

/// Whether its controller says that it takes TCPRoutes; `None` while it has said nothing of any listener.
pub(crate) fn takes_tcp(gateway: &GatewayObject) -> Option<bool> {
    let listeners = &gateway.status.as_ref()?.listeners;
    let mut kinds = listeners
        .iter()
        .flat_map(|listener| &listener.supported_kinds);
    (!listeners.is_empty()).then(|| kinds.any(|kind| kind.kind == "TCPRoute"))
}

/// The ports that Determined masters have opened on it, or left behind, each with its allocation.
pub(crate) fn determined_ports(gateway: &GatewayObject) -> impl Iterator<Item = (&str, &str)> {
    let annotations = gateway.metadata.annotations.iter().flatten();
    annotations.filter_map(|(key, id)| Some((key.strip_prefix(PORT_ANNOTATION)?, id.as_str())))
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

/// How many listeners can be added: places on the Gateway and free ports in the range are both needed.
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
    let conditions = class.status.iter().flat_map(|status| &status.conditions);
    let mut accepted = conditions.filter(|it| it.kind == "Accepted" && it.status == "True");
    class.metadata.deletion_timestamp.is_none() && accepted.next().is_some()
}

/// Whether the class is of a controller that we installed.
pub(crate) fn is_installed(class: &ClassObject) -> bool {
    let labels = class.metadata.labels.as_ref();
    labels.is_some_and(|all| all.contains_key(INSTALLED))
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
    fn an_address_that_is_a_name_in_the_cluster_is_none_for_determined() {
        let gateway = serde_json::from_value(json!({
            "metadata": {"namespace": "n", "name": "g"},
            "spec": {"gatewayClassName": "c"},
            "status": {
                "addresses": [{"type": "NamedAddress", "value": "pool"}],
                "conditions": [{"type": "Programmed", "status": "True"}],
            },
        }))
        .unwrap();
        let State::NoAddress(reason) = state(&gateway) else {
            panic!("it has an address");
        };
        assert!(reason.contains("\"pool\" is a NamedAddress"), "{reason}");
    }
}
