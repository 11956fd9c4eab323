//! devcluster-gateway on a real kube-apiserver. Here the test does through the API what a controller would do;
//! contour.rs has Contour itself, provision.rs what is installed.

const CONTOUR: &str = "projectcontour.io/gateway-controller";

mod choice;
mod contour;
mod credentials;
mod errors;
mod kills;
mod life;
mod paths;
mod provision;
mod provision_errors;
mod read_path;
mod roles;
mod sessions;
mod several_clusters;
mod watch;
