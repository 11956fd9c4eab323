//! Objects as a cluster with Contour and the Gateway API's experimental channel holds them.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::kinds::GATEWAY_GROUP;

/// Contour's name for itself in a GatewayClass.
pub const CONTOUR: &str = "projectcontour.io/gateway-controller";

const BUNDLE: &str = "v1.2.1";

/// A small cluster: one class, one Gateway of it that waits for its controller, and the CRDs of both.
pub fn cluster() -> Vec<Value> {
    vec![
        namespace("default"),
        namespace("kube-system"),
        namespace("projectcontour"),
        service("default", "kubernetes", 443),
        crd("GatewayClass", "gatewayclasses", "Cluster", "v1", 64),
        crd("Gateway", "gateways", "Namespaced", "v1", 64),
        crd("TCPRoute", "tcproutes", "Namespaced", "v1alpha2", 64),
        gateway_class("contour", CONTOUR),
        gateway("default", "tcp-gateway", "contour"),
    ]
}

/// A namespace that is in use.
pub fn namespace(name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name}},
        "spec": {"finalizers": ["kubernetes"]},
        "status": {"phase": "Active"},
    })
}

/// A ClusterIP Service with one port.
pub fn service(namespace: &str, name: &str, port: u16) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {
            "type": "ClusterIP",
            "clusterIP": "10.96.0.1",
            "ports": [{"name": "main", "port": port, "protocol": "TCP", "targetPort": port}],
        },
        "status": {"loadBalancer": {}},
    })
}

/// A GatewayClass that its controller has accepted.
pub fn gateway_class(name: &str, controller: &str) -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "GatewayClass",
        "metadata": {"name": name},
        "spec": {"controllerName": controller},
        "status": {"conditions": [condition("Accepted", "True", "Accepted", "Valid GatewayClass")]},
    })
}

/// A Gateway fresh from its author, with the status that the CRD gives it by default.
pub fn gateway(namespace: &str, name: &str, class: &str) -> Value {
    let pending = |kind: &str| {
        json!({
            "type": kind,
            "status": "Unknown",
            "reason": "Pending",
            "message": "Waiting for controller",
            "lastTransitionTime": "1970-01-01T00:00:00Z",
        })
    };
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {
            "gatewayClassName": class,
            "listeners": [{
                "name": "first",
                "port": 7999,
                "protocol": "TCP",
                "allowedRoutes": {"namespaces": {"from": "All"}},
            }],
        },
        "status": {"conditions": [pending("Accepted"), pending("Programmed")]},
    })
}

/// What a controller writes into the status once the Gateway works, and the address with it.
pub fn program(gateway: &mut Value, address: &str) {
    let listeners: Vec<Value> = gateway["spec"]["listeners"]
        .as_array()
        .into_iter()
        .flatten()
        .map(listener)
        .collect();
    let kind = if address.parse::<std::net::IpAddr>().is_ok() {
        "IPAddress"
    } else {
        "Hostname"
    };
    gateway["status"] = json!({
        "addresses": [{"type": kind, "value": address}],
        "conditions": [
            condition("Accepted", "True", "Accepted", "Gateway is accepted"),
            condition("Programmed", "True", "Programmed", "Gateway is programmed"),
        ],
        "listeners": listeners,
    });
}

fn listener(spec: &Value) -> Value {
    json!({
        "name": spec["name"],
        "attachedRoutes": 0,
        "supportedKinds": [{"group": GATEWAY_GROUP, "kind": "TCPRoute"}],
        "conditions": [
            condition("Accepted", "True", "Accepted", "Listener accepted"),
            condition("Programmed", "True", "Programmed", "Valid listener"),
            condition("ResolvedRefs", "True", "ResolvedRefs", "Listener references resolved"),
        ],
    })
}

/// A condition that has just come to be.
pub fn condition(kind: &str, status: &str, reason: &str, message: &str) -> Value {
    json!({
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "observedGeneration": 1,
        "lastTransitionTime": Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
    })
}

/// A CRD of the Gateway API, its schema cut down to the two limits on listeners.
pub fn crd(kind: &str, plural: &str, scope: &str, version: &str, max_listeners: u64) -> Value {
    let mut schema = json!({"type": "object"});
    if plural == "gateways" {
        let limited =
            json!({"properties": {"listeners": {"type": "array", "maxItems": max_listeners}}});
        schema["properties"] = json!({"spec": limited, "status": limited});
    }
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": format!("{plural}.{GATEWAY_GROUP}"),
            "annotations": {
                "gateway.networking.k8s.io/bundle-version": BUNDLE,
                "gateway.networking.k8s.io/channel": "experimental",
            },
        },
        "spec": {
            "group": GATEWAY_GROUP,
            "names": {
                "kind": kind, "listKind": format!("{kind}List"), "plural": plural, "singular": kind.to_lowercase(),
            },
            "scope": scope,
            "versions": [{
                "name": version, "served": true, "storage": true, "schema": {"openAPIV3Schema": schema},
            }],
        },
        "status": {
            "acceptedNames": {
                "kind": kind, "listKind": format!("{kind}List"), "plural": plural, "singular": kind.to_lowercase(),
            },
            "conditions": [
                condition("NamesAccepted", "True", "NoConflicts", "no conflicts found"),
                condition("Established", "True", "InitialNamesAccepted", "the initial names have been accepted"),
            ],
            "storedVersions": [version],
        },
    })
}
