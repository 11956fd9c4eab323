//! devcluster-gateway on a real kube-apiserver. Here the test does through the API what a controller would do;
//! tests/gateway_contour.rs has Contour itself, tests/gateway_provision.rs what is installed.

const CONTOUR: &str = "projectcontour.io/gateway-controller";

mod choice;
mod credentials;
mod kills;
mod paths;
mod read_path;
mod roles;
mod sessions;
mod watch;
