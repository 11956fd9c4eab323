//! The verbs of a stage, and a parsed command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use clap::builder::PossibleValue;

use crate::config::Sources;

/// A verb of a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Verb {
    /// Do the work and keep it up until asked to stop (the default)
    Run,
    /// Do the work, print the outputs, leave no process
    Once,
    /// Wait until this instance is ready, has failed, or the timeout has passed
    Wait,
    /// Check that the outputs of this instance are still valid, or with --preflight that it can run
    Check,
    /// Remove what a dead run left; needs no config; can be repeated
    Cleanup,
    /// Print versions, verbs and schemas as JSON
    Describe,
    /// Read the configs of a file as JSON on stdin and print what is wrong with them; starts nothing
    Validate,
    /// Print what an error code means and what to do, or list all codes
    Explain,
}

impl Verb {
    /// Whether it is about the program, not about an instance.
    pub(crate) fn is_offline(self) -> bool {
        matches!(self, Verb::Describe | Verb::Validate | Verb::Explain)
    }

    /// Every verb, with its name and help.
    pub(crate) fn all() -> impl Iterator<Item = (Verb, PossibleValue)> {
        let verbs = Verb::value_variants().iter();
        verbs.filter_map(|verb| Some((*verb, verb.to_possible_value()?)))
    }
}

/// Which protocol lines go to stdout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Events {
    All,
    Ready,
    None,
}

/// Who writes to stdin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StdinMode {
    None,
    Chain,
    Control,
}

/// A parsed command line.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) verb: Verb,
    pub(crate) instance: String,
    pub(crate) run_dir: PathBuf,
    pub(crate) events: Option<Events>,
    pub(crate) stdin: StdinMode,
    pub(crate) timeout: Option<Duration>,
    /// For `wait`: let the guard examine what it guards, and wait for that.
    pub(crate) guard: bool,
    /// How long the process stays after an upstream failed.
    pub(crate) linger: Duration,
    /// For `check`: `preflight` or one of [`Stage::DIAGNOSTICS`], in place of the reported outputs.
    pub(crate) diagnostic: Option<&'static str>,
    /// For `cleanup`: only list what it would remove.
    pub(crate) dry_run: bool,
    /// For `cleanup`: keep what an orderly stop keeps.
    pub(crate) keep: bool,
    /// The code to explain.
    pub(crate) code: Option<String>,
    /// Whether to explain it as JSON.
    pub(crate) json: bool,
    pub(crate) sources: Sources,
    pub(crate) command: Vec<OsString>,
}
