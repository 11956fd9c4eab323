//! The Gateway through which a Determined master reaches tasks in a Kubernetes cluster: found, waited for, watched.

mod choose;
mod client;
mod config;
mod fault;
mod file;
mod hold;
mod kubeconfig;
mod minify;
mod objects;
mod outputs;
mod proxy;
mod stage;
mod survey;
mod wait;

pub use config::{Config, PortRange};
pub use outputs::{InternalTaskGateway, Outputs};
pub use stage::Gateway;
