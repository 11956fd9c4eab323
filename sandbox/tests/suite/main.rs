//! The stand-ins answer as what they stand for.

mod kube_api;
mod master_and_pod;
