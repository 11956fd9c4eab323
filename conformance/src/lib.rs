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

/// The level of the protocol that a program implements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
enum Level {
    /// Only the wire.
    Plugin,
    /// All verbs and the run directory.
    Stage,
}
