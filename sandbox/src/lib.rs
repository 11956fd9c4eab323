//! Stand-ins for a Kubernetes API, a Determined master and a pod, so that everything runs on one machine.
//!
//! They listen on loopback only, and implement what the stages need to work as they do in the cloud.

mod cli;
pub mod kube_api;
pub mod master;
pub mod pod;
mod serve;
mod show;
pub mod sshd;

pub use cli::main;

use futures::FutureExt;
use futures::future::{BoxFuture, select_all};
use tokio::signal::unix::{SignalKind, signal};

/// Resolves on one of these signals. The handlers are installed when this returns, not only when it is awaited.
fn shutdown_signal(kinds: &[SignalKind]) -> std::io::Result<BoxFuture<'static, ()>> {
    let listening = kinds.iter().map(|kind| {
        let mut signal = signal(*kind)?;
        Ok(async move { signal.recv().await.unwrap_or_default() }.boxed())
    });
    let listening = listening.collect::<std::io::Result<Vec<_>>>()?;
    Ok(select_all(listening).map(drop).boxed())
}
