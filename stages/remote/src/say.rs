//! Text for people, on stderr.

use std::io::Write;

/// Writes a line in one write: devcluster logs what comes as it comes. A stderr that is closed ends nothing.
pub(crate) fn say(line: &str) {
    drop(std::io::stderr().write_all(format!("{line}\n").as_bytes()));
}
