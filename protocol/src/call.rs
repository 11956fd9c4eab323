//! How a stage is called: its verbs, and what a command line comes to.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use clap::builder::PossibleValue;

use crate::config::Sources;

/// What a stage was called to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Verb {
    /// Do the work and hold it up until told to stop (the default)
    Run,
    /// Do the work, print the outputs, leave no process
    Once,
    /// Wait until this instance is ready, has failed, or a deadline
    Wait,
    /// Check that what this instance reported still holds, or with --preflight that it can run at all
    Check,
    /// Undo what a dead run left; needs no config; can be repeated
    Cleanup,
    /// Print versions, verbs and schemas as JSON
    Describe,
    /// Read the configs of a file as JSON on stdin, print what is wrong with them; runs nothing
    Validate,
    /// Say what an error code means and what to do about it, or list all codes
    Explain,
}

impl Verb {
    /// It is about the program, not about an instance.
    pub(crate) fn is_offline(self) -> bool {
        matches!(self, Verb::Describe | Verb::Validate | Verb::Explain)
    }

    /// Every verb by its name, with its help.
    pub(crate) fn all() -> impl Iterator<Item = (Verb, PossibleValue)> {
        let verbs = Verb::value_variants().iter();
        verbs.filter_map(|verb| Some((*verb, verb.to_possible_value()?)))
    }
}

/// Which lines go to stdout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Events {
    All,
    Ready,
    None,
}

/// Who speaks on stdin.
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
    /// How long to stay after an upstream failed.
    pub(crate) linger: Duration,
    /// Look at what `run` will need, or at one of [`Stage::DIAGNOSTICS`], not at what was reported.
    pub(crate) diagnostic: Option<&'static str>,
    /// Say what `cleanup` would undo, and undo nothing.
    pub(crate) dry_run: bool,
    /// What to explain.
    pub(crate) code: Option<String>,
    /// Explain it as JSON.
    pub(crate) json: bool,
    pub(crate) sources: Sources,
    pub(crate) command: Vec<OsString>,
}
