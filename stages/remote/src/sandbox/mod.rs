//! Stand-ins for what a developer does not have at hand: a Kubernetes API, a Determined master, a pod.
//!
//! They listen on loopback only, and each is no more than the stages need to take the very way they take in the cloud.

pub mod kube_api;
mod serve;
pub mod sshd;
