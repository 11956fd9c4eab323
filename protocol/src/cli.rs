//! The command line of every stage. Each config field is a flag.

mod command;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgMatches, ValueEnum};

use crate::call::{Call, Events, StdinMode, Verb};
use crate::config::{Sources, properties};
use crate::env::Env;
use crate::stage::Stage;
use crate::verbs::describe::{Description, description};
use command::diagnostic_id;

pub(crate) use command::PREFLIGHT;
pub use command::command;

/// Parses the arguments, program name first. The error is clap's, `--help` and `--version` included.
pub(crate) fn parse<S: Stage>(mut args: Vec<OsString>, env: &Env) -> Result<Call, clap::Error> {
    let first = args.get(1).and_then(|a| a.to_str()).unwrap_or_default();
    let known = Verb::from_str(first, false).is_ok();
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
    let verb = Verb::from_str(name, false).unwrap_or(Verb::Run);
    let call = call::<S>(verb, &described, sub, env);
    let nameless = call
        .command
        .first()
        .is_some_and(|program| program.is_empty());
    if nameless || (bare && call.command.is_empty()) {
        let what = "no command after `--`: name a program, or leave out `--`";
        return Err(command.error(clap::error::ErrorKind::TooFewValues, what));
    }
    Ok(call)
}

fn call<S: Stage>(verb: Verb, described: &Description, m: &ArgMatches, env: &Env) -> Call {
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
        run_dir: path("run-dir").unwrap_or_else(|| env.default_run_dir()),
        events: m.try_get_one::<Events>("events").ok().flatten().copied(),
        stdin: match text("stdin").as_deref() {
            Some("chain") => StdinMode::Chain,
            Some("control") => StdinMode::Control,
            _ => StdinMode::None,
        },
        timeout: number("timeout").map(Duration::from_secs_f64),
        linger: number("linger").map_or(Duration::ZERO, Duration::from_secs_f64),
        diagnostic: std::iter::once(PREFLIGHT)
            .chain(S::DIAGNOSTICS.iter().map(|(name, _)| *name))
            .find(|name| set(&diagnostic_id(name))),
        guard: set("guard"),
        dry_run: set("dry-run"),
        keep: set("keep"),
        code: text("code"),
        json: text("format").as_deref() == Some("json"),
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
