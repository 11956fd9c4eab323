//! Every check, in the order in which they run.

mod chain;
mod control;
mod describe;
mod devcluster;
mod input;
mod kills;
mod lock;
mod outputs;
mod ready;
mod run_dir;
mod secrets;
mod shutdown;
mod stdin;
mod stdout;
mod streams;
mod verbs;

use super::Check;

/// The registry.
pub(super) fn all() -> impl Iterator<Item = &'static Check> {
    let groups: [&[Check]; 16] = [
        describe::CHECKS,
        stdout::CHECKS,
        outputs::CHECKS,
        ready::CHECKS,
        control::CHECKS,
        input::CHECKS,
        stdin::CHECKS,
        shutdown::CHECKS,
        streams::CHECKS,
        secrets::CHECKS,
        run_dir::CHECKS,
        lock::CHECKS,
        verbs::CHECKS,
        chain::CHECKS,
        kills::CHECKS,
        devcluster::CHECKS,
    ];
    groups.into_iter().flatten()
}
