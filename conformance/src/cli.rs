//! The command line of the kit.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use protocol::{Env, Exit, StageError, files, program};
use serde_json::{Map, Value, json};
use tokio::signal::unix::{SignalKind, signal};

use super::report::{Entry, Outcome, Report, level_word, show};
use super::subject::{Subject, read_config, resolve, split};
use super::{Check, Level, checks};

const NAME: &str = "devcluster-conformance";

const EXAMPLES: &str = "Examples:
  devcluster-remote conformance --config vpn.yaml -- ./vpn-stage.py
  devcluster-remote conformance --only ready.twice -- ./my-stage --server a.example.com
  devcluster-remote conformance --level stage --json report.json -- node my-stage.js

Words after `--` up to the first that begins with `-` call the program; the verb is put after them, and what follows are \
flags of the config of a full stage. Every check runs the program in a home of its own, one after the other, so a config \
with a fixed port or server is fine.

Exit codes: 0 everything passed, 1 something failed, 2 usage, 5 the program has no `describe` that can be read.";

/// The whole of `main`.
pub fn main() -> ExitCode {
    let matches = command().get_matches();
    program::run(NAME, run(&matches, &Env::of_process()))
}

fn command() -> Command {
    Command::new(NAME)
        .version(env!("CARGO_PKG_VERSION"))
        .about("Check a stage in any language against PROTOCOL.md, from outside")
        .after_help(EXAMPLES)
        .args([
            Arg::new("level")
                .long("level")
                .value_parser(["plugin", "stage"])
                .help("How much of the protocol it has to speak [default: what the verbs of its `describe` say]"),
            Arg::new("config")
                .short('c')
                .long("config")
                .value_name("FILE")
                .value_parser(value_parser!(PathBuf))
                .help("Config with which it becomes ready, YAML or JSON; `with` of a plugin stage"),
            Arg::new("secret")
                .long("secret")
                .value_name("FIELD")
                .action(ArgAction::Append)
                .help("This field of the config holds a secret, or the path of a file with one; it must be seen nowhere. Fields that the schema calls `writeOnly` are taken without being named"),
            Arg::new("only")
                .long("only")
                .value_name("ID")
                .action(ArgAction::Append)
                .help("Run these checks alone; `describe` stands for all that begin with it"),
            Arg::new("list").long("list").action(ArgAction::SetTrue).help("List the checks and run none"),
            Arg::new("json")
                .long("json")
                .value_name("FILE")
                .value_parser(value_parser!(PathBuf))
                .help("Write the report as JSON too; `-` is stdout, and the text goes to stderr then"),
            Arg::new("ready-within")
                .long("ready-within")
                .value_name("SECONDS")
                .value_parser(value_parser!(u64).range(1..=3600))
                .default_value("60")
                .help("How long it may take to become ready"),
            Arg::new("kills")
                .long("kills")
                .value_name("COUNT")
                .value_parser(value_parser!(u32).range(1..=10_000))
                .default_value("6")
                .help("How often it is killed, each time at another point"),
            Arg::new("no-skips")
                .long("no-skips")
                .action(ArgAction::SetTrue)
                .help("What could not be checked counts as failed"),
            Arg::new("devcluster")
                .long("devcluster")
                .value_name("PATH")
                .help("Stock devcluster to run it under [default: $DEVCLUSTER, else the one on $PATH]"),
            Arg::new("program")
                .last(true)
                .num_args(1..)
                .required_unless_present("list")
                .value_name("PROGRAM")
                .value_parser(value_parser!(OsString))
                .help("The program, and flags of its config"),
        ])
}

/// Runs the checks and returns the exit code.
async fn run(m: &ArgMatches, env: &Env) -> Result<u8, StageError> {
    let only: Vec<&String> = m.get_many("only").into_iter().flatten().collect();
    let level = m.get_one::<String>("level").map(|l| match l.as_str() {
        "stage" => Level::Stage,
        _ => Level::Plugin,
    });
    let chosen = choose(&only)?;
    if m.get_flag("list") {
        let chosen = chosen.iter().filter(|c| level.is_none_or(|l| c.level <= l));
        return list(chosen, m.get_one("json"));
    }
    let mut subject = subject(m, env)?;
    let mut signals =
        signal(SignalKind::interrupt()).and_then(|int| Ok((int, signal(SignalKind::terminate())?)));
    let interrupted = async {
        match &mut signals {
            Ok((int, term)) => tokio::select! { _ = int.recv() => {}, _ = term.recv() => {} },
            Err(_) => std::future::pending().await,
        }
    };
    let work = async {
        subject.describe(level).await?;
        subject.secrets.extend(marked_secrets(&subject));
        report(m, &subject, &chosen).await
    };
    tokio::select! {
        code = work => code,
        () = interrupted => {
            Err(StageError::new("remote.interrupted", "interrupted; the stage under test was ended"))
        }
    }
}

fn choose(only: &[&String]) -> Result<Vec<&'static Check>, StageError> {
    let named = |check: &Check, name: &str| {
        check.id == name
            || check
                .id
                .strip_prefix(name)
                .is_some_and(|rest| rest.starts_with('.'))
    };
    for name in only {
        if !checks::all().any(|c| named(c, name)) {
            return Err(
                StageError::new("remote.conformance", format!("no check is named {name}"))
                    .hint("`devcluster-remote conformance --list` names them all")
                    .exit(Exit::Usage),
            );
        }
    }
    Ok(checks::all()
        .filter(|c| only.is_empty() || only.iter().any(|n| named(c, n)))
        .collect())
}

fn list<'a>(
    checks: impl Iterator<Item = &'a &'static Check>,
    out: Option<&PathBuf>,
) -> Result<u8, StageError> {
    let (mut text, mut all) = (String::new(), Vec::new());
    for check in checks {
        let (id, title, section) = (
            check.id,
            check.title,
            format!("PROTOCOL.md#{}", check.section),
        );
        text.push_str(&format!(
            "{id:<26} {:<10} {title}\n",
            level_word(check.level)
        ));
        all.push(json!({"id": id, "level": check.level, "title": title, "section": section}));
    }
    write_json(&Value::Array(all), out)?;
    show(&text, out.is_some_and(|o| o == Path::new("-")));
    Ok(Exit::Ok as u8)
}

fn write_json(report: &Value, out: Option<&PathBuf>) -> Result<(), StageError> {
    let Some(out) = out else { return Ok(()) };
    let text = format!("{report:#}\n");
    if out == Path::new("-") {
        show(&text, false);
        return Ok(());
    }
    files::replace(out, text.as_bytes(), false)
        .map_err(|e| StageError::io(format!("cannot write the report {}", out.display()), &e))
}

fn subject(m: &ArgMatches, env: &Env) -> Result<Subject, StageError> {
    let words = m
        .get_many::<OsString>("program")
        .into_iter()
        .flatten()
        .cloned()
        .collect();
    let (mut program, flags) = split(words);
    resolve(&mut program, env)?;
    let config = m
        .get_one::<PathBuf>("config")
        .map_or(Ok(Map::new()), |file| read_config(file, env))?;
    let mut secrets = Vec::new();
    for field in m.get_many::<String>("secret").into_iter().flatten() {
        let value = config.get(field).and_then(Value::as_str).ok_or_else(|| {
            StageError::new(
                "remote.conformance",
                format!("--secret {field}: the config has no text in that field"),
            )
            .exit(Exit::Usage)
        })?;
        secrets.extend(secrets_in(value));
    }
    let devcluster = match m.get_one::<String>("devcluster") {
        Some(path) => Some(env.find_program(path).ok_or_else(|| {
            StageError::new("remote.devcluster_missing", format!("no program {path}"))
                .exit(Exit::Usage)
        })?),
        None => env.find_program(env.get("DEVCLUSTER").unwrap_or("devcluster")),
    };
    Ok(Subject {
        program,
        flags,
        config,
        level: Level::Plugin,
        description: Value::Null,
        secrets,
        patience: Duration::from_secs(m.get_one("ready-within").copied().unwrap_or(60)),
        kills: m.get_one("kills").copied().unwrap_or(1),
        devcluster: devcluster.map(|d| std::path::absolute(&d).unwrap_or(d)),
        driver: program::find("devcluster-remote", env).ok(),
    })
}

/// The value of a field that is a secret, or the lines of the file that it names.
fn secrets_in(value: &str) -> Vec<String> {
    /// Anything shorter is found everywhere.
    const SHORTEST: usize = 6;
    let lines = match std::fs::read_to_string(value) {
        Ok(text) => text
            .lines()
            .filter(|l| !l.starts_with("-----"))
            .map(str::to_owned)
            .collect(),
        Err(_) => vec![value.to_owned()],
    };
    lines.into_iter().filter(|l| l.len() >= SHORTEST).collect()
}

fn marked_secrets(subject: &Subject) -> Vec<String> {
    let properties = subject.description["config"]["properties"]
        .as_object()
        .into_iter()
        .flatten();
    let marked = properties.filter(|(_, schema)| schema["writeOnly"] == true);
    marked
        .filter_map(|(field, _)| subject.config.get(field)?.as_str())
        .flat_map(secrets_in)
        .collect()
}

async fn report(
    m: &ArgMatches,
    subject: &Subject,
    chosen: &[&'static Check],
) -> Result<u8, StageError> {
    let out = m.get_one::<PathBuf>("json");
    let to_stderr = out.is_some_and(|o| o == Path::new("-"));
    let began = Instant::now();
    let mut entries = Vec::new();
    for check in chosen.iter().filter(|c| c.level <= subject.level) {
        let from = Instant::now();
        let verdict = (check.run)(subject).await;
        let entry = Entry::new(check, verdict, from.elapsed());
        show(&entry.text(), to_stderr);
        entries.push(entry);
    }
    let report = Report {
        entries,
        took: began.elapsed(),
    };
    show(&report.summary(subject), to_stderr);
    write_json(&report.json(subject), out)?;
    let strict = m.get_flag("no-skips");
    let failed =
        report.count(Outcome::Failed) > 0 || (strict && report.count(Outcome::Skipped) > 0);
    Ok(if failed { Exit::Failed } else { Exit::Ok } as u8)
}
