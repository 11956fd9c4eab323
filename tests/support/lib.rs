//! The ground of the end-to-end tests: real servers, the real binaries, and detectors of what they leave behind.
//!
//! A missing server fails the test, with the line to install it. Only a kube-apiserver and network namespaces may be
//! missing: the tests that need one report it, and fail where `DEVCLUSTER_REQUIRE_KUBE` or `DEVCLUSTER_REQUIRE_NETNS`
//! is set, as in `.ci/run`.

pub mod bed;
mod bin;
pub mod checks;
mod claim;
pub mod contour;
pub mod devcluster;
pub mod emit;
pub mod gate;
pub mod gateway;
pub mod kube;
pub mod kube_infra;
pub mod kube_real;
pub mod leaks;
pub mod master;
pub mod netns;
pub mod plugin;
mod ports;
pub mod random;
pub mod relay;
pub mod site;
mod skip;
mod sshd;
mod stage;
pub mod terminal;
pub mod traffic;
pub mod tunnel;

pub use bin::{bin, build_dir};
pub use ports::free_ports;
pub use sshd::{Options, TestSshd, start_sshd, start_sshd_by};
pub use stage::{Home, StageClient, code_of};

use std::time::Duration;

/// Longer than anything takes on a machine that is busy building. Only a failing test waits for it.
pub const DEADLINE: Duration = Duration::from_secs(100);
