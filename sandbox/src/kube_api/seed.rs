//! Objects of a cluster with Contour and the Gateway API's experimental channel.

use serde_json::{Value, json};

/// The controller name of Contour in a GatewayClass.
const CONTOUR: &str = "projectcontour.io/gateway-controller";

/// The creation time of all objects.
pub(super) const LONG_AGO: &str = "2026-01-01T00:00:00Z";

/// A small cluster: one class, one Gateway of it that waits for its controller, and the CRD of Gateways, with only the two
/// limits on listeners in its schema.
pub fn cluster() -> Vec<Value> {
    let limited = json!({"properties": {"listeners": {"type": "array", "maxItems": 64}}});
    let schema = json!({"type": "object", "properties": {"spec": limited, "status": limited}});
    let crd = json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": "gateways.gateway.networking.k8s.io",
            "annotations": {
                "gateway.networking.k8s.io/bundle-version": "v1.2.1",
                "gateway.networking.k8s.io/channel": "experimental",
            },
        },
        "spec": {"versions": [{
            "name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema},
        }]},
    });
    let namespace =
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}});
    let class = gateway_class("contour", CONTOUR);
    vec![
        namespace,
        crd,
        class,
        gateway("default", "tcp-gateway", "contour"),
    ]
}

/// A GatewayClass that its controller has accepted.
pub fn gateway_class(name: &str, controller: &str) -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "GatewayClass",
        "metadata": {"name": name},
        "spec": {"controllerName": controller},
        "status": {"conditions": [condition("Accepted", "True", "Valid GatewayClass")]},
    })
}

/// A new Gateway, with the default status of the CRD.
pub fn gateway(namespace: &str, name: &str, class: &str) -> Value {
    let pending = |kind: &str| condition(kind, "Unknown", "Waiting for controller");
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

/// Sets the status and the address as a controller does when the Gateway works.
pub fn program(gateway: &mut Value, address: &str) {
    let kind = match address.parse::<std::net::IpAddr>() {
        Ok(_) => "IPAddress",
        Err(_) => "Hostname",
    };
    let done = ["Accepted", "Programmed"].map(|kind| condition(kind, "True", "it works"));
    gateway["status"] = json!({
        "addresses": [{"type": kind, "value": address}],
        "conditions": done,
        "listeners": [{
            "name": "first",
            "attachedRoutes": 0,
            "supportedKinds": [{"group": "gateway.networking.k8s.io", "kind": "TCPRoute"}],
            "conditions": done,
        }],
    });
}

fn condition(kind: &str, status: &str, message: &str) -> Value {
    json!({
        "type": kind,
        "status": status,
        "reason": kind,
        "message": message,
        "observedGeneration": 1,
        "lastTransitionTime": LONG_AGO,
    })
}
