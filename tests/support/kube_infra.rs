//! A cluster on which a controller is installed and removed.

use std::path::PathBuf;
use std::time::Duration;

use http::Request;
use serde_json::{Value, json};

use crate::kube_real::{CLASSES, GATEWAYS, LEASES, RealKube, TCP_ROUTES, path, program};

pub const CRDS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
pub const NAMESPACES: &str = "/api/v1/namespaces";
pub const DEPLOYMENTS: &str = "/apis/apps/v1/deployments";
pub const CLUSTER_ROLES: &str = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
pub const CONTOUR: &str = "projectcontour.io/gateway-controller";

/// Where what the manifests of Contour make is.
const INFRASTRUCTURE: [&str; 7] = [
    CLASSES,
    NAMESPACES,
    DEPLOYMENTS,
    CLUSTER_ROLES,
    "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
    "/apis/rbac.authorization.k8s.io/v1/roles",
    "/api/v1/serviceaccounts",
];

const MARK: &str = "devcluster-gateway/infrastructure";

fn accepted() -> Value {
    json!([{"type": "Accepted", "status": "True", "reason": "Accepted", "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": 1}])
}

impl RealKube {
    /// Runs beside the test, and ends with it.
    pub fn spawn(&mut self, work: impl Future<Output = ()> + Send + 'static) {
        self.controllers.spawn(work);
    }

    /// Contour's own manifests.
    pub fn contour(&self) -> PathBuf {
        self.file("contour/contour-gateway-provisioner.yaml")
    }

    /// Takes the Gateway API, and all that is Contour's, off the cluster.
    pub async fn uninstall(&self) {
        let theirs = |crd: &Value| {
            let group = crd["spec"]["group"].as_str().unwrap_or_default();
            group.starts_with("gateway.networking.") || group == "projectcontour.io"
        };
        self.until("end of the CRDs", async || {
            let crds = self.items(CRDS).await;
            for crd in crds.iter().filter(|it| theirs(it)) {
                self.delete(&path(CRDS, crd)).await;
            }
            !crds.iter().any(theirs)
        })
        .await;
    }

    /// What of a controller is on the cluster that carries our mark, and the Lease that lists it.
    pub async fn infrastructure(&self) -> Vec<String> {
        let mut found = Vec::new();
        for list in INFRASTRUCTURE {
            for item in self.items(list).await {
                if !item["metadata"]["labels"][MARK].is_null() {
                    found.push(path(list, &item));
                }
            }
        }
        let leases = self.items(LEASES).await;
        let ours = |it: &&Value| it["metadata"]["name"] == "devcluster-infrastructure";
        found.extend(leases.iter().filter(ours).map(|it| path(LEASES, it)));
        found
    }

    /// Everything that was there before and is to be as it was: the path of each object, and its spec.
    pub async fn snapshot(&self) -> Vec<(String, Value)> {
        let mut all = Vec::new();
        let others = [
            GATEWAYS,
            TCP_ROUTES,
            CRDS,
            "/api/v1/configmaps",
            "/api/v1/services",
        ];
        for list in INFRASTRUCTURE.into_iter().chain(others) {
            for mut item in self.items(list).await {
                let at = path(list, &item);
                let object = item.as_object_mut().expect("an object");
                object.remove("metadata");
                object.remove("status");
                all.push((at, item));
            }
        }
        all
    }

    /// Does through the API what Contour's provisioner does, in a test that has no pods: from now on its class is accepted
    /// when its Deployment is there, and every Gateway is programmed.
    pub fn start_provisioner(&mut self) {
        let client = self.client();
        self.controllers.spawn(async move {
            let list = async |list: &str| {
                let request = Request::get(list).body(Vec::new()).expect("a request");
                let answer: Value = client.request(request).await.unwrap_or_default();
                answer["items"].as_array().cloned().unwrap_or_default()
            };
            loop {
                let runs = list(DEPLOYMENTS)
                    .await
                    .iter()
                    .any(|it| it["metadata"]["name"] == "contour-gateway-provisioner");
                for class in list(CLASSES)
                    .await
                    .iter()
                    .filter(|it| runs && it["spec"]["controllerName"] == CONTOUR)
                {
                    if class["status"]["conditions"][0]["status"] != "True" {
                        let body = json!({"status": {"conditions": accepted()}}).to_string();
                        let request = Request::patch(format!("{}/status", path(CLASSES, class)))
                            .header("content-type", "application/merge-patch+json")
                            .body(body.into_bytes())
                            .expect("a request");
                        drop(client.request::<Value>(request).await);
                    }
                }
                for gateway in list(GATEWAYS)
                    .await
                    .iter()
                    .filter(|it| it["status"]["addresses"].is_null())
                {
                    program(&client, &path(GATEWAYS, gateway), "127.0.0.1").await;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
    }
}
