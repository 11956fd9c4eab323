//! The stand-ins answer as the real programs do.

mod kube_api;
mod master_and_pod;
