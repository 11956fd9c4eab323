//! The stage that holds a Gateway for a Determined master: acquires or creates it, waits for it, watches it, releases
//! it.

mod acquire;
mod codes;
mod config;
mod controller_objects;
mod crd;
mod decide;
mod dedicated;
mod dry_run;
mod gc;
mod kubeconfig_file;
mod lease;
mod leftovers;
mod manifests;
mod objects;
mod outputs;
mod owned;
mod permissions;
mod preflight;
mod prompt;
mod provision;
mod readiness;
mod session;
mod stage;
mod survey;
mod task_namespace;
mod tasks;
mod usage;
mod watch;

pub use config::{Config, Prefer, Provision};
pub use manifests::Manifests;
pub use outputs::{InternalTaskGateway, Outputs};

/// The stage.
#[derive(Clone)]
pub struct Gateway;
