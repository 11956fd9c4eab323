//! Contour itself, as plain processes beside a cluster without nodes: what its pods would do is done from here.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::kube_real::RealKube;
use crate::ports::free_ports;

/// A process of Contour, which ends with the test.
pub struct Contour {
    process: Child,
    log: TempDir,
}

impl Drop for Contour {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

fn start(kube: &RealKube, namespace: &str, args: &[&str]) -> Contour {
    let log = tempfile::tempdir().expect("no temporary directory");
    let file = std::fs::File::create(log.path().join("log")).expect("cannot make a log");
    let process = Command::new(kube.file("contour/contour"))
        .args(args)
        .args(["--no-incluster", "--kubeconfig"])
        .arg(kube.directory().join("kubeconfig"))
        .env("CONTOUR_PROVISIONER_NAMESPACE", namespace)
        .env("CONTOUR_NAMESPACE", namespace)
        .env("POD_NAME", "test")
        .stdin(Stdio::null())
        .stdout(file.try_clone().expect("no file descriptor"))
        .stderr(file)
        .spawn()
        .expect("cannot start Contour; hint: scripts/get-bed --api");
    Contour { process, log }
}

impl Contour {
    /// The gateway provisioner, as the Deployment of its manifests runs it.
    pub fn provisioner(kube: &RealKube) -> Contour {
        start(
            kube,
            "projectcontour",
            &["gateway-provisioner", "--metrics-addr=0"],
        )
    }

    /// Contour proper for one Gateway, as the Deployment that the provisioner makes for it runs it; and its load balancer,
    /// which a cloud would bring, at this address.
    pub async fn serve(kube: &RealKube, namespace: &str, gateway: &str, address: &str) -> Contour {
        let config = format!(
            "/apis/projectcontour.io/v1alpha1/namespaces/{namespace}/contourconfigurations/contourconfig-{gateway}"
        );
        let service = format!("/api/v1/namespaces/{namespace}/services/envoy-{gateway}");
        kube.until(
            "Contour's configuration and the Service of its Envoy",
            async || !kube.get(&config).await.is_null() && !kube.get(&service).await.is_null(),
        )
        .await;
        let mut ports = free_ports(4);
        let mut listen = || json!({"address": "127.0.0.1", "port": ports.next()});
        let mut xds = listen();
        xds["tls"] = json!({"insecure": true});
        let spec =
            json!({"xdsServer": xds, "metrics": listen(), "health": listen(), "debug": listen()});
        kube.merge(&config, &json!({"spec": spec})).await;
        let ingress = json!({"status": {"loadBalancer": {"ingress": [{"ip": address}]}}});
        kube.merge(&format!("{service}/status"), &ingress).await;
        let name = format!("--contour-config-name=contourconfig-{gateway}");
        let envoy = format!("--envoy-service-name=envoy-{gateway}");
        start(
            kube,
            namespace,
            &["serve", &name, &envoy, "--disable-leader-election"],
        )
    }

    /// What it has written, for a test that fails.
    pub fn said(&self) -> String {
        let path: &Path = self.log.path();
        std::fs::read_to_string(path.join("log")).unwrap_or_default()
    }
}

/// What Contour says of a route: the status of its condition `Accepted`.
pub fn accepted(route: &Value) -> Option<&str> {
    let conditions = route["status"]["parents"][0]["conditions"].as_array()?;
    conditions.iter().find(|it| it["type"] == "Accepted")?["status"].as_str()
}
