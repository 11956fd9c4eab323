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

use futures::FutureExt;
use futures::future::{BoxFuture, select_all};
use tokio::signal::unix::{SignalKind, signal};

/// Resolves on one of these signals. The handlers are in place when this returns, not only when it is awaited.
fn told_to_end(kinds: &[SignalKind]) -> std::io::Result<BoxFuture<'static, ()>> {
    let listening = kinds.iter().map(|kind| {
        let mut signal = signal(*kind)?;
        Ok(async move { signal.recv().await.unwrap_or_default() }.boxed())
    });
    let listening = listening.collect::<std::io::Result<Vec<_>>>()?;
    Ok(select_all(listening).map(drop).boxed())
}
