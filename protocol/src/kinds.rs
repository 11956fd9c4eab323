//! The names of kinds: ours, and those that mean something else.

/// The kinds of stage of this project.
pub const OURS: [&str; 3] = ["tunnel", "gateway", "config-emit"];

/// The kind that writes the configs of other stages.
pub const RENDERER: &str = "config-emit";

/// A program under the driver's plugin host.
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

/// Programs of this project that are no stages.
const PROGRAMS: [&str; 3] = ["remote", "conformance", "sandbox"];

/// The release of this project.
pub const RELEASE: &str = env!("CARGO_PKG_VERSION");

/// Whether a kind is one of this project's.
pub fn is_ours(kind: &str) -> bool {
    OURS.contains(&kind)
}

/// Whether a program `devcluster-<kind>` may be a stage of this kind: a short name that means nothing else.
pub fn is_kind(kind: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let reserved = kind == PLUGIN || DEVCLUSTERS.contains(&kind) || PROGRAMS.contains(&kind);
    (1..=31).contains(&kind.len())
        && kind.starts_with(|c: char| c.is_ascii_lowercase())
        && kind.chars().all(inner)
        && !reserved
}
