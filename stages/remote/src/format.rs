//! How a result is shown.

use clap::{Args, ValueEnum};

/// How a result is shown.
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
