//! What cannot be had on every machine.

use std::io::Write;

/// Says past the test harness, which would keep it to itself, that a test is skipped. Fails it where the variable insists.
#[track_caller]
pub(crate) fn skip(test: &str, missing: &str, mend: &str, insists: &str) {
    assert!(
        std::env::var_os(insists).is_none(),
        "no {missing}; mend: {mend}"
    );
    drop(writeln!(
        std::io::stderr(),
        "SKIPPED {test}: no {missing}; mend: {mend}"
    ));
}
