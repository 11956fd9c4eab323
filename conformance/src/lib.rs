//! `conformance`: a black-box runner that checks a stage, written in any language, against PROTOCOL.md.

mod checks;
mod cli;
mod heard;
mod report;
mod running;
mod scene;
mod subject;
mod verdict;
mod world;

pub use cli::main;

use futures::future::LocalBoxFuture;
use serde::Serialize;

use subject::Subject;
use verdict::Verdict;

/// How much of the protocol a program speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
enum Level {
    /// The wire alone.
    Plugin,
    /// All verbs and the run directory.
    Stage,
}

/// One thing that is checked.
struct Check {
    /// Stable: reports and scripts name it.
    id: &'static str,
    /// The lowest level that has to pass it.
    level: Level,
    /// What holds when it passes.
    title: &'static str,
    /// The heading in PROTOCOL.md, as an anchor.
    section: &'static str,
    run: for<'a> fn(&'a Subject) -> LocalBoxFuture<'a, Verdict>,
}
