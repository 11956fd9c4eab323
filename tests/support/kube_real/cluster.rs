//! What there is on the cluster: CRDs, classes, Gateways, and what their controller would do with them.

use std::collections::BTreeSet;
use std::time::Duration;

use http::{Method, Request};
use kube::Client;
use protocol::yaml::Document;
use serde_json::{Value, json};

use super::{CLASSES, GATEWAYS, LEASES, RealKube, TCP_ROUTES, in_namespace, path};

/// What a test makes many of.
const CROWDS: [&str; 5] = [GATEWAYS, CLASSES, TCP_ROUTES, LEASES, "/api/v1/pods"];

/// Where else something may be that a failed test has left.
const OTHERS: [&str; 11] = [
    "/api/v1/namespaces",
    "/api/v1/services",
    "/api/v1/configmaps",
    "/api/v1/secrets",
    "/api/v1/serviceaccounts",
    "/apis/apps/v1/deployments",
    "/apis/apps/v1/daemonsets",
    "/apis/rbac.authorization.k8s.io/v1/roles",
    "/apis/rbac.authorization.k8s.io/v1/rolebindings",
    "/apis/rbac.authorization.k8s.io/v1/clusterroles",
    "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
];

impl RealKube {
    /// Installs the CRDs of a release of the Gateway API. Those of another release go first, with all their objects.
    pub async fn install(&self, version: &str, channel: &str) {
        const CRDS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
        let directory = self.file(&format!("gateway-api/{version}/{channel}"));
        for kind in ["gatewayclasses", "gateways", "tcproutes"] {
            let path = directory.join(format!("gateway.networking.k8s.io_{kind}.yaml"));
            let Ok(text) = std::fs::read_to_string(path) else {
                continue;
            };
            let crd = Document::parse(&text).expect("not YAML").value();
            let path = format!("{CRDS}/{kind}.gateway.networking.k8s.io");
            let installed = self.get(&path).await;
            let annotations = |crd: &Value| crd["metadata"]["annotations"].clone();
            let kept = ["bundle-version", "channel"].iter().all(|it| {
                let key = format!("gateway.networking.k8s.io/{it}");
                annotations(&installed)[&key] == annotations(&crd)[&key]
            });
            if !kept {
                // In place, a version that objects were stored in cannot be dropped.
                self.delete(&path).await;
                self.until("the old CRD to go", async || {
                    self.get(&path).await.is_null()
                })
                .await;
            }
            let apply = format!("{path}?fieldManager=test&force=true");
            let applied = self
                .send(Method::PATCH, &apply, "application/apply-patch+yaml", &crd)
                .await;
            applied.unwrap_or_else(|error| panic!("{path}: {error}"));
            self.until(&format!("{kind} to be served"), async || {
                let crd = self.get(&path).await;
                let conditions = crd["status"]["conditions"]
                    .as_array()
                    .cloned()
                    .unwrap_or_default();
                let established =
                    |it: &Value| it["type"] == "Established" && it["status"] == "True";
                conditions.iter().any(established)
            })
            .await;
        }
        self.until("the Gateway API", async || {
            !self.get(GATEWAYS).await.is_null()
        })
        .await;
    }

    /// Takes everything off the cluster that was not there before the first test, and leaves the CRDs.
    pub(super) async fn wipe(&self) {
        for list in CROWDS {
            self.until("empty cluster", async || {
                let left = self.theirs(list).await;
                let collections: BTreeSet<String> = left
                    .iter()
                    .map(|it| match it["metadata"]["namespace"].as_str() {
                        Some(namespace) => in_namespace(list, namespace),
                        None => list.to_owned(),
                    })
                    .collect();
                for collection in &collections {
                    self.delete(collection).await;
                }
                left.is_empty()
            })
            .await;
        }
        let look = async || {
            let mut all = BTreeSet::new();
            for list in OTHERS {
                all.extend(self.theirs(list).await.iter().map(|it| path(list, it)));
            }
            all
        };
        let Some(baseline) = &self.server.baseline else {
            return self.server.note_baseline(&look().await);
        };
        self.until("cluster as it was", async || {
            let all = look().await;
            let left = all.difference(baseline).collect::<Vec<_>>();
            for path in &left {
                self.delete(path).await;
            }
            left.is_empty()
        })
        .await;
    }

    /// Without what the API itself keeps.
    async fn theirs(&self, list: &str) -> Vec<Value> {
        let of_kubernetes = |it: &Value, field: &str| {
            let text = it["metadata"][field].as_str();
            text.is_some_and(|it| it.starts_with("kube-"))
        };
        let mut all = self.items(list).await;
        all.retain(|it| !of_kubernetes(it, "namespace") && !of_kubernetes(it, "name"));
        all
    }

    /// A namespace, if it is not there yet.
    pub async fn namespace(&self, name: &str) {
        let path = format!("/api/v1/namespaces/{name}");
        if self.get(&path).await.is_null() {
            self.create("/api/v1/namespaces", &json!({"metadata": {"name": name}}))
                .await;
        }
    }

    /// A GatewayClass that its controller has accepted.
    pub async fn class(&self, name: &str, controller: &str) {
        self.create(
            CLASSES,
            &sandbox::kube_api::seed::gateway_class(name, controller),
        )
        .await;
        let accepted = json!({"type": "Accepted", "status": "True", "reason": "Accepted", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": 1});
        let status = json!({"status": {"conditions": [accepted]}});
        self.merge(&format!("{CLASSES}/{name}/status"), &status)
            .await;
    }

    /// A new Gateway of the class `contour`, without a status.
    pub async fn gateway(&self, namespace: &str, name: &str) -> Value {
        let mut gateway = sandbox::kube_api::seed::gateway(namespace, name, "contour");
        gateway.as_object_mut().expect("an object").remove("status");
        self.create(&in_namespace(GATEWAYS, namespace), &gateway)
            .await
    }

    /// Does to a Gateway what its controller does in the end; an empty address removes it.
    pub async fn program(&self, namespace: &str, name: &str, address: &str) {
        let path = format!("{}/{name}", in_namespace(GATEWAYS, namespace));
        program(&self.client(), &path, address).await;
    }

    /// From now on every Gateway is programmed as soon as it is there.
    pub fn start_controller(&mut self) {
        let client = self.client();
        self.controllers.spawn(async move {
            loop {
                let request = Request::get(GATEWAYS).body(Vec::new()).expect("a request");
                let list: Value = client.request(request).await.unwrap_or_default();
                for gateway in list["items"].as_array().into_iter().flatten() {
                    if gateway["status"]["addresses"].is_null() {
                        program(&client, &path(GATEWAYS, gateway), "127.0.0.1").await;
                    }
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
    }
}

pub(crate) async fn program(client: &Client, path: &str, address: &str) {
    let condition = |kind: &str| json!({"type": kind, "status": "True", "reason": kind, "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"});
    let kind = match address.parse::<std::net::IpAddr>() {
        Ok(_) => "IPAddress",
        Err(_) => "Hostname",
    };
    let addresses = match address {
        "" => json!([]),
        address => json!([{"type": kind, "value": address}]),
    };
    let body = json!({"status": {
        "addresses": addresses,
        "conditions": [condition("Accepted"), condition("Programmed")],
    }});
    let request = Request::patch(format!("{path}/status"))
        .header("content-type", "application/merge-patch+json")
        .body(body.to_string().into_bytes())
        .expect("a request");
    // It may have been deleted meanwhile.
    drop(client.request::<Value>(request).await);
}
