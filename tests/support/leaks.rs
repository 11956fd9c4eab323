//! What is still there when nothing should be: processes, listeners, files. Reads /proc, so Linux only.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::DEADLINE;

/// Processes that have `mark` in their command line or environment, as `pid command line`.
pub fn processes(mark: &str) -> Vec<String> {
    let own = std::process::id().to_string();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").expect("no /proc").flatten() {
        let pid = entry.file_name().to_string_lossy().into_owned();
        if pid == own || !pid.bytes().all(|b| b.is_ascii_digit()) {
            continue;
        }
        // A process that ends meanwhile reads as empty.
        let read = |name: &str| {
            let bytes = fs::read(entry.path().join(name)).unwrap_or_default();
            String::from_utf8_lossy(&bytes).replace('\0', " ")
        };
        let command = read("cmdline");
        if command.contains(mark) || read("environ").contains(mark) {
            found.push(format!("{pid} {}", command.trim_end()));
        }
    }
    found
}

/// Whether anything listens on this TCP port, on any address.
pub fn is_listening(port: u16) -> bool {
    let local_port = format!(":{port:04X}");
    ["/proc/net/tcp", "/proc/net/tcp6"].iter().any(|table| {
        fs::read_to_string(table)
            .unwrap_or_default()
            .lines()
            .any(|line| {
                let fields: Vec<&str> = line.split_whitespace().collect();
                // 0A is LISTEN.
                fields.len() > 3 && fields[1].ends_with(&local_port) && fields[3] == "0A"
            })
    })
}

/// Every file, socket and link below a directory; directories alone do not count.
pub fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => dirs.push(entry.path()),
                _ => found.push(entry.path()),
            }
        }
    }
    found.sort();
    found
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
