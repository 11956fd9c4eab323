//! Skips tests that a machine cannot run.

use std::fs::OpenOptions;
use std::io::Write;

/// Says that a test is skipped, where the harness cannot keep it to itself: in the file of `make test`, else on stderr.
/// Fails it where the variable insists.
#[track_caller]
pub(crate) fn skip(missing: &str, hint: &str, insists: &str) {
    assert!(
        std::env::var_os(insists).is_none(),
        "no {missing}; hint: {hint}"
    );
    let thread = std::thread::current();
    let test = thread.name().unwrap_or_default();
    let line = format!("SKIPPED {test}: no {missing}; hint: {hint}\n");
    let file = std::env::var_os("DEVCLUSTER_SKIPPED")
        .map(|path| OpenOptions::new().append(true).create(true).open(path));
    let written = match file {
        Some(file) => file.and_then(|mut file| file.write_all(line.as_bytes())),
        None => std::io::stderr().write_all(line.as_bytes()),
    };
    written.expect("cannot say that a test is skipped");
}
