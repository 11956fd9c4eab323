//! What is still there when nothing should be: processes, listeners, files.

use std::path::{Path, PathBuf};
use std::time::Duration;

use conformance::harness::machine;

use crate::DEADLINE;

/// Processes that have `mark` in their command line or environment, as `pid command line`.
pub fn processes(mark: &str) -> Vec<String> {
    let found = machine::processes(mark).into_iter();
    found.map(|process| process.to_string()).collect()
}

/// Whether anything listens on this TCP port, on any address.
pub fn is_listening(port: u16) -> bool {
    machine::listening().contains(&port)
}

/// Every file, socket and link below a directory; directories alone do not count.
pub fn files(dir: &Path) -> Vec<PathBuf> {
    machine::files(dir).into_iter().collect()
}

/// Waits until `still_there` returns nothing. The kernel tells nobody when a process or listener goes, hence the polling.
pub async fn gone<T: std::fmt::Debug>(what: &str, mut still_there: impl FnMut() -> Vec<T>) {
    let deadline = tokio::time::Instant::now() + DEADLINE;
    loop {
        let left = still_there();
        if left.is_empty() {
            return;
        }
        assert!(
            tokio::time::Instant::now() < deadline,
            "{what} still there: {left:?}"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
