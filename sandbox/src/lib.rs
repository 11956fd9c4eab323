//! Stand-ins for what a developer does not have at hand: a Kubernetes API, a Determined master, a pod.
//!
//! They listen on loopback only, and each is no more than the stages need to take the very way they take in the cloud.

mod cli;
pub mod kube_api;
pub mod master;
pub mod pod;
mod serve;
mod show;
pub mod sshd;

pub use cli::main;

use tokio::signal::unix::{SignalKind, signal};

/// Resolves on SIGTERM or SIGINT. The handlers are in place when this returns, not only when it is awaited.
fn told_to_end() -> impl Future<Output = ()> {
    let signals = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    );
    async move {
        let (Ok(mut terminate), Ok(mut interrupt)) = signals else {
            return std::future::pending().await;
        };
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    }
}
