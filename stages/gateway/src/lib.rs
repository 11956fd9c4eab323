//! The Gateway through which a Determined master reaches tasks in a Kubernetes cluster: taken or made, waited for,
//! watched, given back.

mod ask;
mod children;
mod choose;
mod claim;
mod collect;
mod config;
mod crd;
mod dry_run;
mod file;
mod foresee;
mod hold;
mod lease;
mod listing;
mod manifests;
mod objects;
mod outputs;
mod own;
mod permissions;
mod ports;
mod preflight;
mod provision;
mod raise;
mod rivals;
mod session;
mod stage;
mod survey;
mod take;
mod wait;

pub use config::{Config, Prefer, Provision};
pub use manifests::Manifests;
pub use outputs::{InternalTaskGateway, Outputs};
pub use ports::PortRange;
pub use stage::Gateway;
