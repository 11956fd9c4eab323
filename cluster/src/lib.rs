//! The way to one Kubernetes cluster: kubeconfig, client, proxy, Leases, permissions, errors.

pub mod client;
mod connection;
pub mod fault;
pub mod kinds;
pub mod kubeconfig;
pub mod minify;
pub mod observed;
pub mod permissions;
pub mod proxy;
pub mod reach;
