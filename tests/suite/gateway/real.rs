//! devcluster-gateway on a real kube-apiserver. Here the test acts as the controller through the API; contour.rs has
//! Contour itself, provision.rs the installation.

use support::kube_real::{RealKube, real_kube};

const CONTOUR: &str = "projectcontour.io/gateway-controller";

/// A cluster with a working Gateway.
async fn with_gateway() -> Option<RealKube> {
    let kube = real_kube().await?;
    kube.class("contour", CONTOUR).await;
    kube.gateway("default", "tcp-gateway").await;
    kube.program("default", "tcp-gateway", "127.0.0.1").await;
    Some(kube)
}

mod choice;
mod contour;
mod credentials;
mod errors;
mod foreign;
mod kills;
mod lifecycle;
mod older;
mod paths;
mod provision;
mod provision_errors;
mod read_path;
mod roles;
mod sessions;
mod several_clusters;
mod tasks;
mod watch;
