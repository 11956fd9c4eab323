//! The command line that every stage has. Config fields become flags by themselves.

mod command;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::ArgMatches;

use crate::config::{Sources, properties, schema_of};
use crate::stage::Stage;
use command::{look_id, looks};

pub(crate) use command::PREFLIGHT;
pub use command::command;

/// What a stage was called to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Run,
    Once,
    Wait,
    Check,
    Cleanup,
    Describe,
}

/// Verbs by name, with their help.
pub(crate) const VERBS: [(&str, Verb, &str); 6] = [
    (
        "run",
        Verb::Run,
        "Do the work and hold it up until told to stop (the default)",
    ),
    (
        "once",
        Verb::Once,
        "Do the work, print the outputs, leave no process",
    ),
    (
        "wait",
        Verb::Wait,
        "Wait until this instance is ready, has failed, or a deadline",
    ),
    (
        "check",
        Verb::Check,
        "Check that what this instance reported still holds, or with --preflight that it can run at all",
    ),
    (
        "cleanup",
        Verb::Cleanup,
        "Undo what a dead run left; needs no config; can be repeated",
    ),
    (
        "describe",
        Verb::Describe,
        "Print versions, verbs and schemas as JSON",
    ),
];

/// Which lines go to stdout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Events {
    All,
    Ready,
    None,
}

/// Who speaks on stdin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stdin {
    None,
    Chain,
    Control,
}

/// A parsed command line.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) verb: Verb,
    pub(crate) instance: String,
    pub(crate) run_dir: Option<PathBuf>,
    pub(crate) events: Option<Events>,
    pub(crate) stdin: Stdin,
    pub(crate) timeout: Option<Duration>,
    /// How long to stay after an upstream failed.
    pub(crate) linger: Duration,
    /// Look at what `run` will need, or at one of [`Stage::LOOKS`], not at what was reported.
    pub(crate) look: Option<&'static str>,
    /// Say what `cleanup` would undo, and undo nothing.
    pub(crate) dry_run: bool,
    pub(crate) sources: Sources,
    pub(crate) command: Vec<OsString>,
}

/// Parses the arguments, program name first. The error is clap's, `--help` and `--version` included.
pub(crate) fn parse<S: Stage>(mut args: Vec<OsString>) -> Result<Call, clap::Error> {
    let first = args.get(1).and_then(|a| a.to_str()).unwrap_or_default();
    let known = VERBS.iter().any(|(name, ..)| *name == first);
    if !known && !["help", "-h", "--help", "-V", "--version"].contains(&first) {
        args.insert(1.min(args.len()), "run".into());
    }
    let bare = args.last().is_some_and(|a| a == "--");
    let matches = command::<S>().try_get_matches_from(args)?;
    let Some((name, sub)) = matches.subcommand() else {
        return Err(command::<S>().error(clap::error::ErrorKind::MissingSubcommand, "no verb"));
    };
    let verb = VERBS
        .iter()
        .find(|(n, ..)| *n == name)
        .map_or(Verb::Run, |(_, v, _)| *v);
    let call = call::<S>(verb, sub);
    let nameless = call
        .command
        .first()
        .is_some_and(|program| program.is_empty());
    if nameless || (bare && call.command.is_empty()) {
        let what = "`--` is followed by no command: name a program, or leave `--` away";
        return Err(command::<S>().error(clap::error::ErrorKind::TooFewValues, what));
    }
    Ok(call)
}

fn call<S: Stage>(verb: Verb, m: &ArgMatches) -> Call {
    let text = |id: &str| m.try_get_one::<String>(id).ok().flatten().cloned();
    let number = |id: &str| m.try_get_one::<f64>(id).ok().flatten().copied();
    let set = |id: &str| m.try_get_one::<bool>(id).ok().flatten() == Some(&true);
    let path = |id: &str| m.try_get_one::<PathBuf>(id).ok().flatten().cloned();
    let fields = properties(&schema_of::<S::Config>());
    let flags = fields
        .keys()
        .filter_map(|field| Some((field.clone(), text(&format!("field.{field}"))?)));
    Call {
        verb,
        instance: text("name").unwrap_or_else(|| S::KIND.to_owned()),
        run_dir: path("run-dir"),
        events: text("events").map(|e| match e.as_str() {
            "ready" => Events::Ready,
            "none" => Events::None,
            _ => Events::All,
        }),
        stdin: match text("stdin").as_deref() {
            Some("chain") => Stdin::Chain,
            Some("control") => Stdin::Control,
            _ => Stdin::None,
        },
        timeout: number("timeout").map(Duration::from_secs_f64),
        linger: number("linger").map_or(Duration::ZERO, Duration::from_secs_f64),
        look: looks::<S>()
            .map(|(name, _)| name)
            .find(|name| set(&look_id(name))),
        dry_run: set("dry-run"),
        sources: Sources {
            file: path("config"),
            start: None,
            flags: flags.collect(),
        },
        command: m
            .try_get_many::<OsString>("command")
            .ok()
            .flatten()
            .into_iter()
            .flatten()
            .cloned()
            .collect(),
    }
}
