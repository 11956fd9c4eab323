//! The output format of a result.

use clap::{Args, ValueEnum};

/// The output format of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Lines for people
    Text,
    /// One JSON document
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct Formatted {
    /// Lines for people, or one JSON document
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub(crate) format: Format,
}
