//! Access to one Kubernetes cluster: kubeconfig, client, proxy, Leases, permissions, deletion, errors.

pub mod client;
pub mod codes;
mod connection;
pub mod errors;
pub mod kubeconfig;
pub mod lease;
pub mod lease_expiry;
pub mod objects;
pub mod ours;
pub mod permissions;
pub mod proxy;

pub use client::{Cluster, Timeouts};
pub use errors::{Attempt, status};
pub use kubeconfig::{ClusterRef, KubeContext};
