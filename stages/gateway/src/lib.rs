//! The Gateway through which a Determined master reaches tasks in a Kubernetes cluster: taken or made, waited for,
//! watched, given back.

mod acquire;
mod ask;
mod children;
mod config;
mod crd;
mod decide;
mod dedicated;
mod dry_run;
mod gc;
mod hold;
mod kubeconfig_file;
mod lease;
mod leftovers;
mod manifests;
mod objects;
mod outputs;
mod permissions;
mod preflight;
mod provision;
mod session;
mod stage;
mod survey;
mod usage;
mod wait;

pub use config::{Config, Prefer, Provision};
pub use manifests::Manifests;
pub use outputs::{InternalTaskGateway, Outputs};

/// The stage: finds the Gateway and watches over it.
#[derive(Clone)]
pub struct Gateway;
