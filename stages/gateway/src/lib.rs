//! The Gateway through which a Determined master reaches tasks in a Kubernetes cluster: taken or made, waited for,
//! watched, given back.

mod choose;
mod claim;
mod client;
mod config;
mod fault;
mod file;
mod hold;
mod kubeconfig;
mod lease;
mod minify;
mod objects;
mod observed;
mod outputs;
mod own;
mod ports;
mod preflight;
mod proxy;
mod raise;
mod rivals;
mod session;
mod stage;
mod survey;
mod take;
mod wait;

pub use config::{Config, Prefer};
pub use outputs::{InternalTaskGateway, Outputs};
pub use ports::PortRange;
pub use stage::Gateway;
