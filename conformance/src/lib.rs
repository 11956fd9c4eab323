//! The conformance kit: checks a stage, written in any language, against PROTOCOL.md, from outside.

mod checks;
mod cli;
pub mod harness;
mod report;
mod runner;
mod scene;
mod subject;
mod verdict;

pub use cli::main;

use clap::ValueEnum;
use serde::Serialize;

/// How much of the protocol a program speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
enum Level {
    /// The wire alone.
    Plugin,
    /// All verbs and the run directory.
    Stage,
}
