//! Finds what should be gone: processes, listeners, files.

use std::path::{Path, PathBuf};
use std::time::Duration;

use conformance::harness::machine;
use rustix::process::{Pid, Signal, kill_process};

use crate::{DEADLINE, Home};

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

/// What a home's state directory has besides identities, which stay until a `cleanup` by hand.
pub fn state(home: &Home) -> Vec<PathBuf> {
    let mut left = files(&home.path().join("state"));
    left.retain(|path| path.extension().is_none_or(|it| it != "id"));
    left
}

/// Waits until `still_there` returns nothing. The kernel does not report when a process or listener ends, so it polls.
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

/// Kills all of these at once, so that none sees the end of another.
pub fn power_off(processes: &[String]) {
    let pid = |process: &String| process.split(' ').next()?.parse().ok();
    let mut pids: Vec<i32> = processes.iter().filter_map(pid).collect();
    // Children first: the kernel wakes what is stopped when its parent ends.
    pids.sort_unstable_by(|a, b| b.cmp(a));
    for signal in [Signal::STOP, Signal::KILL] {
        for pid in pids.iter().filter_map(|pid| Pid::from_raw(*pid)) {
            // It may have ended meanwhile.
            let _ = kill_process(pid, signal);
        }
    }
}
