//! The names of kinds of stage.

/// The kinds of stage of this project.
pub const OURS: [&str; 3] = ["tunnel", "gateway", "config-emit"];

/// The kind that writes the configs of other stages.
pub const RENDERER: &str = "config-emit";

/// A plugin, run by the driver's plugin host.
pub const PLUGIN: &str = "plugin";

/// devcluster's own kinds.
pub const DEVCLUSTERS: [&str; 6] = [
    "elastic",
    "db",
    "master",
    "agent",
    "custom",
    "custom_docker",
];

/// Programs of this project that are not stages.
const PROGRAMS: [&str; 3] = ["remote", "conformance", "sandbox"];

/// The release of this project.
pub const RELEASE: &str = env!("CARGO_PKG_VERSION");

/// The variable with which `up` tells the release that wrote the command lines of its stages.
pub const RELEASE_VARIABLE: &str = "DEVCLUSTER_STAGES_RELEASE";

/// Whether a kind is one of this project's.
pub fn is_ours(kind: &str) -> bool {
    OURS.contains(&kind)
}

/// Whether a program `devcluster-<kind>` can be a stage of this kind: the name is short and not reserved.
pub fn is_kind(kind: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let reserved = kind == PLUGIN || DEVCLUSTERS.contains(&kind) || PROGRAMS.contains(&kind);
    (1..=31).contains(&kind.len())
        && kind.starts_with(|c: char| c.is_ascii_lowercase())
        && kind.chars().all(inner)
        && !reserved
}
