//! The command line as a clap command, for parsing, help, completions and man pages.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::{
    NonEmptyStringValueParser, PathBufValueParser, PossibleValuesParser, TypedValueParser,
};
use clap::{Arg, ArgAction, Command};
use serde_json::Value;

use crate::call::{Events, Verb};
use crate::config::{properties, takes_only};
use crate::rundir::is_instance_name;
use crate::verbs::describe::Description;

const EXIT_CODES: &str = "Exit codes: 0 ok, 1 failed, 2 usage or config, 3 protocol version, 4 upstream missing or failed, 5 check failed, \
6 locked, 7 timeout, 70 internal, 75 failed but worth a retry.";

const TIMEOUT_HELP: &str = "Stop waiting after this many seconds, with exit code 7 [default: wait while the instance is alive]";

const LINGER_HELP: &str = "When the awaited stage fails, end this many seconds later. devcluster dies when a stage and the \
command that waits for it end at the same time [default: 0]";

const GUARD_HELP: &str = "Let the guard of the instance examine what it guards, and wait for the result instead; the exit code is 0 \
whatever the result is";

const DRY_RUN_HELP: &str = "List what is left; remove nothing";

const KEEP_HELP: &str =
    "Keep what an orderly stop keeps for running tasks, and the identity of this instance";

/// The command line of a program with this description.
pub fn command(program: &str, described: &Description) -> Command {
    let examples = &described.examples;
    let mut command = Command::new(program.to_owned())
        .version(described.version.clone())
        .about(described.about.clone())
        .after_help(format!(
            "The default verb is `run`.\n{EXIT_CODES}\n\n{examples}"
        ))
        .subcommand_required(true);
    for (verb, named) in Verb::all() {
        let mut sub = Command::new(named.get_name().to_owned())
            .about(named.get_help().cloned().unwrap_or_default())
            .after_help(format!("{EXIT_CODES}\n\n{examples}"));
        if !verb.is_offline() {
            sub = sub.args(instance_args(&described.kind));
        }
        if verb == Verb::Wait {
            sub = sub.arg(seconds_arg("timeout", TIMEOUT_HELP));
            sub = sub.arg(switch("guard", GUARD_HELP));
        }
        if matches!(verb, Verb::Wait | Verb::Once) {
            sub = sub.arg(seconds_arg("linger", LINGER_HELP));
        }
        if !verb.is_offline() && verb != Verb::Wait {
            sub = sub.arg(events_arg());
        }
        if verb == Verb::Check {
            sub = sub.args(diagnostic_args(described));
        }
        if verb == Verb::Cleanup {
            sub = sub.args([switch("dry-run", DRY_RUN_HELP), switch("keep", KEEP_HELP)]);
        }
        if verb == Verb::Explain {
            sub = sub.args(explain_args());
        }
        if matches!(verb, Verb::Run | Verb::Once | Verb::Check) {
            sub = sub.arg(config_arg()).args(field_args(&described.config));
        }
        if matches!(verb, Verb::Run | Verb::Once) {
            sub = sub.arg(stdin_arg(verb));
        }
        if verb == Verb::Run {
            sub = sub.arg(command_arg());
        }
        command = command.subcommand(sub);
    }
    command
}

fn instance_args(kind: &str) -> [Arg; 2] {
    let name = |text: &str| match is_instance_name(text) {
        true => Ok(text.to_owned()),
        false => Err(
            "a name has at most 63 letters, digits, `.`, `_` or `-`, the first a letter or digit",
        ),
    };
    [
        Arg::new("name").long("name").value_name("INSTANCE").value_parser(name).help(format!(
            "Name of this instance; several of a kind need one each [default: {kind}]"
        )),
        Arg::new("run-dir").long("run-dir").value_name("DIR").value_parser(PathBufValueParser::new().try_map(utf8)).help(
            "Run directory, shared by the stages of one devcluster [default: $XDG_RUNTIME_DIR/devcluster-stages, else one in the temporary directory]",
        ),
    ]
}

/// The path is written to JSON: the ledger, the outputs.
fn utf8(path: PathBuf) -> Result<PathBuf, &'static str> {
    match path.to_str() {
        Some(_) => Ok(path),
        None => Err("the path has to be UTF-8"),
    }
}

/// The diagnostic that every stage has.
pub(crate) const PREFLIGHT: &str = "preflight";

const PREFLIGHT_HELP: &str = "Before a run: check everything that it needs, and report for each thing whether it is there, with a \
hint. Takes nothing and leaves nothing";

fn diagnostics(described: &Description) -> impl Iterator<Item = (&str, &str)> {
    let more = described.diagnostics.iter();
    let more = more.map(|d| (d.name.as_str(), d.about.as_str()));
    std::iter::once((PREFLIGHT, PREFLIGHT_HELP)).chain(more)
}

pub(super) fn diagnostic_id(name: &str) -> String {
    format!("diagnostic.{name}")
}

fn diagnostic_args(described: &Description) -> impl Iterator<Item = Arg> {
    diagnostics(described).map(|(name, help)| {
        let others = diagnostics(described).map(|(other, _)| other);
        let others = others
            .filter(move |other| *other != name)
            .map(diagnostic_id);
        Arg::new(diagnostic_id(name))
            .long(name.to_owned())
            .action(ArgAction::SetTrue)
            .conflicts_with_all(others)
            .help(help.to_owned())
    })
}

fn valued(name: &'static str, value: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(value).help(help)
}

fn switch(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name)
        .long(name)
        .action(ArgAction::SetTrue)
        .help(help)
}

fn seconds_arg(name: &'static str, help: &'static str) -> Arg {
    valued(name, "SECONDS", help).value_parser(seconds)
}

fn seconds(text: &str) -> Result<f64, &'static str> {
    match text.parse::<f64>() {
        Ok(s) if (0.0..=1e9).contains(&s) => Ok(s),
        _ => Err("a number of seconds"),
    }
}

fn events_arg() -> Arg {
    let help = "JSON lines to write to stdout [default: all; none when stdout is a terminal or a command is run]";
    valued("events", "WHICH", help).value_parser(clap::value_parser!(Events))
}

fn stdin_arg(verb: Verb) -> Arg {
    let values: &[&str] = if verb == Verb::Run {
        &["none", "chain", "control"]
    } else {
        &["none", "chain"]
    };
    let help = "What stdin carries: nothing, the messages of the upstream stage in a pipe, or the commands of a host [default: none]";
    valued("stdin", "WHO", help).value_parser(PossibleValuesParser::new(values.to_vec()))
}

fn explain_args() -> [Arg; 2] {
    let code = Arg::new("code").value_name("CODE");
    let format = valued("format", "FORMAT", "Lines for people, or one JSON document");
    [
        code.help("Such as tunnel.server_busy [default: a list of all]"),
        format
            .default_value("text")
            .value_parser(PossibleValuesParser::new(["text", "json"])),
    ]
}

fn config_arg() -> Arg {
    valued(
        "config",
        "FILE",
        "Config file, YAML or JSON; flags override it",
    )
    .short('c')
    .value_parser(clap::value_parser!(PathBuf))
}

fn command_arg() -> Arg {
    Arg::new("command")
        .last(true)
        .num_args(1..)
        .value_parser(clap::value_parser!(OsString))
        .value_name("COMMAND")
        .help("Run this command once ready, stay up until it ends, and exit with its code")
}

fn field_args(config: &Value) -> Vec<Arg> {
    properties(config)
        .iter()
        .map(|(name, property)| field_arg(name, property))
        .collect()
}

fn field_arg(name: &str, property: &Value) -> Arg {
    let about = property["description"]
        .as_str()
        .unwrap_or_default()
        .trim()
        .trim_end_matches('.');
    let about = about
        .split("\n\n")
        .next()
        .unwrap_or_default()
        .replace('\n', " ");
    let default = match &property["default"] {
        Value::Null => String::new(),
        Value::String(s) => format!(" [default: {s}]"),
        other => format!(" [default: {other}]"),
    };
    let arg = Arg::new(format!("field.{name}"))
        .long(name.replace('_', "-"))
        .help(format!("{about}{default}"))
        .help_heading("Config")
        .action(ArgAction::Set);
    if takes_only(property, "boolean") {
        return arg
            .value_name("BOOL")
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
            .value_parser(PossibleValuesParser::new(["true", "false"]))
            .hide_possible_values(true);
    }
    let choices = choices(property);
    if !choices.is_empty() {
        return arg
            .value_name("VALUE")
            .value_parser(PossibleValuesParser::new(choices));
    }
    let plain = ["string", "integer", "number"];
    let value = if plain.iter().any(|t| takes_only(property, t)) {
        "VALUE"
    } else {
        "JSON"
    };
    arg.value_name(value)
        .allow_hyphen_values(true)
        .value_parser(NonEmptyStringValueParser::new())
}

/// The values of a field that accepts only certain words.
fn choices(property: &Value) -> Vec<String> {
    let listed = property["enum"].as_array().into_iter().flatten();
    let documented = property["oneOf"].as_array().into_iter().flatten();
    let words = listed.chain(documented.map(|variant| &variant["const"]));
    let texts: Option<Vec<String>> = words.map(|w| w.as_str().map(str::to_owned)).collect();
    texts.unwrap_or_default()
}
