//! The command line that every stage has. Config fields become flags by themselves.

mod command;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::ArgMatches;

use crate::config::{Sources, properties};
use crate::stage::Stage;
use crate::verbs::describe::{Description, description};
use command::look_id;

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
    Validate,
}

/// Verbs by name, with their help.
pub(crate) const VERBS: [(&str, Verb, &str); 7] = [
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
    (
        "validate",
        Verb::Validate,
        "Read the configs of a file as JSON on stdin, print what is wrong with them; runs nothing",
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
    let described = description::<S>();
    let mut command = command(&S::program(), &described);
    let matches = command.try_get_matches_from_mut(args)?;
    let Some((name, sub)) = matches.subcommand() else {
        return Err(command.error(clap::error::ErrorKind::MissingSubcommand, "no verb"));
    };
    let verb = VERBS
        .iter()
        .find(|(n, ..)| *n == name)
        .map_or(Verb::Run, |(_, v, _)| *v);
    let call = call::<S>(verb, &described, sub);
    let nameless = call
        .command
        .first()
        .is_some_and(|program| program.is_empty());
    if nameless || (bare && call.command.is_empty()) {
        let what = "`--` is followed by no command: name a program, or leave `--` away";
        return Err(command.error(clap::error::ErrorKind::TooFewValues, what));
    }
    Ok(call)
}

fn call<S: Stage>(verb: Verb, described: &Description, m: &ArgMatches) -> Call {
    let text = |id: &str| m.try_get_one::<String>(id).ok().flatten().cloned();
    let number = |id: &str| m.try_get_one::<f64>(id).ok().flatten().copied();
    let set = |id: &str| m.try_get_one::<bool>(id).ok().flatten() == Some(&true);
    let path = |id: &str| m.try_get_one::<PathBuf>(id).ok().flatten().cloned();
    let fields = properties(&described.config);
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
        look: std::iter::once(PREFLIGHT)
            .chain(S::LOOKS.iter().map(|(name, _)| *name))
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
