//! The command line of the kit.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use protocol::{Env, Exit, StageError, codes, program};
use serde_json::{Map, Value};
use tokio::signal::unix::{SignalKind, signal};

use super::Level;
use super::checks::{self, Check};
use super::report::{CheckResult, ReportOutput, list};
use super::runner::run_all;
use super::scene::tidy;
use super::subject::{Subject, read_config, resolve, split, usage};

const NAME: &str = "devcluster-conformance";

const EXAMPLES: &str = "Examples:
  devcluster-remote conformance --config vpn.yaml -- ./vpn-stage.py
  devcluster-remote conformance --only ready.twice -- ./my-stage --server a.example.com
  devcluster-remote conformance --level stage --json report.json -- node my-stage.js

Words after `--` up to the first that begins with `-` call the program; the kit puts the verb after them, and the rest are \
flags of the config of a full stage. Every check runs the program with its own home directory. Checks run concurrently only \
if several instances can be ready at the same time, so a config with a fixed port or server works.

Exit codes: 0 all passed, 1 a check failed, 2 usage, 5 the output of the program's `describe` is not valid.";

/// Check a stage in any language against PROTOCOL.md, from outside
#[derive(Parser)]
#[command(name = NAME, version, after_help = EXAMPLES)]
struct Cli {
    /// Level of the protocol to check [default: by the verbs of its `describe`]
    #[arg(long)]
    level: Option<Level>,
    /// Config with which it becomes ready, YAML or JSON; for a plugin, the content of `with`
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// This field of the config is a secret, or the path of a file with one, which must not appear anywhere. Fields with
    /// `writeOnly` in the schema are included
    #[arg(long, value_name = "FIELD")]
    secret: Vec<String>,
    /// Run only these checks; `describe` selects all that begin with it
    #[arg(long, value_name = "ID")]
    only: Vec<String>,
    /// List the checks without running them
    #[arg(long)]
    list: bool,
    /// Write the report as JSON too; `-` is stdout, then the text goes to stderr
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// How long it may take to become ready; time in which the machine is busy with other work does not count
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    ready_within: u64,
    /// How often it is killed, each at another time
    #[arg(long, value_name = "COUNT", default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    kills: u32,
    /// How many checks run concurrently, if as many instances can be ready at the same time
    #[arg(long, value_name = "COUNT", default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=64))]
    jobs: u8,
    /// Count skipped checks as failed
    #[arg(long)]
    no_skips: bool,
    /// Stock devcluster to run it under [default: $DEVCLUSTER, else the one on $PATH]
    #[arg(long, value_name = "PATH")]
    devcluster: Option<String>,
    /// The program, and flags of its config
    #[arg(last = true, required_unless_present = "list", value_name = "PROGRAM")]
    program: Vec<OsString>,
}

/// The whole of `main`.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    program::run(NAME, cli.run(&Env::from_process()))
}

impl Cli {
    async fn run(&self, env: &Env) -> Result<u8, StageError> {
        let mut chosen = self.chosen()?;
        let out = ReportOutput(self.json.as_deref());
        if self.list {
            let level = self.level.unwrap_or(Level::Stage);
            chosen.retain(|check| check.level <= level);
            let (text, json) = list(&chosen);
            out.json(&json)?;
            out.text(&text);
            return Ok(Exit::Ok as u8);
        }
        let mut subject = self.subject(env)?;
        let failed = |e| StageError::io("cannot listen for signals", &e);
        let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
        let interrupted = tokio::select! {
            code = self.check(&mut subject, &chosen, out) => Some(code),
            _ = interrupt.recv() => None,
            _ = terminate.recv() => None,
        };
        tidy(&subject).await;
        interrupted.unwrap_or_else(|| {
            let message = "interrupted; the stage under test was ended";
            Err(StageError::new(codes::INTERRUPTED, message))
        })
    }

    fn chosen(&self) -> Result<Vec<Check>, StageError> {
        let mut checks: Vec<Check> = checks::all().collect();
        let is_unknown = |name: &&String| !checks.iter().any(|check| check.is_named(name));
        if let Some(name) = self.only.iter().find(is_unknown) {
            return Err(usage(format!("there is no check {name}"))
                .hint("`devcluster-remote conformance --list` lists all"));
        }
        let is_meant = |check: &Check| self.only.iter().any(|name| check.is_named(name));
        checks.retain(|check| self.only.is_empty() || is_meant(check));
        Ok(checks)
    }

    fn subject(&self, env: &Env) -> Result<Subject, StageError> {
        let (mut program, flags) = split(self.program.clone());
        resolve(&mut program, env)?;
        let config = match &self.config {
            Some(file) => read_config(file, env)?,
            None => Map::new(),
        };
        let mut secrets = Vec::new();
        for field in &self.secret {
            let value = config.get(field).and_then(Value::as_str).ok_or_else(|| {
                usage(format!(
                    "--secret {field}: this field of the config is not a text"
                ))
            })?;
            secrets.extend(secrets_in(value));
        }
        let devcluster = match &self.devcluster {
            Some(path) => {
                let found = env.find_program(path);
                Some(found.ok_or_else(|| {
                    usage(format!(
                        "the program {path} does not exist or is not executable"
                    ))
                })?)
            }
            None => env.find_program(env.get("DEVCLUSTER").unwrap_or("devcluster")),
        };
        Ok(Subject {
            program,
            flags,
            config,
            level: Level::Plugin,
            description: Value::Null,
            secrets,
            patience: Duration::from_secs(self.ready_within),
            kills: self.kills,
            devcluster: devcluster.map(|d| std::path::absolute(&d).unwrap_or(d)),
            driver: program::find("devcluster-remote", env).ok(),
            never_ready: false,
            untidy: Default::default(),
        })
    }

    async fn check(
        &self,
        subject: &mut Subject,
        chosen: &[Check],
        out: ReportOutput<'_>,
    ) -> Result<u8, StageError> {
        subject.describe(self.level).await?;
        subject.secrets.extend(marked_secrets(subject));
        let report = run_all(subject, chosen, self.jobs.into(), out).await;
        out.text(&report.summary(subject));
        out.json(&report.json(subject))?;
        let bad = |outcome| report.count(outcome) > 0;
        let failed = bad(CheckResult::Failed) || (self.no_skips && bad(CheckResult::Skipped));
        Ok(if failed { Exit::Failed } else { Exit::Ok } as u8)
    }
}

/// The secret value of a field, or the lines of the file that it names.
fn secrets_in(value: &str) -> Vec<String> {
    /// Shorter texts would be found anywhere.
    const SHORTEST: usize = 6;
    let text = std::fs::read_to_string(value).unwrap_or_else(|_| value.to_owned());
    let lines = text.lines().filter(|l| !l.starts_with("-----"));
    lines
        .filter(|l| l.len() >= SHORTEST)
        .map(str::to_owned)
        .collect()
}

fn marked_secrets(subject: &Subject) -> Vec<String> {
    let properties = subject.description["config"]["properties"].as_object();
    let marked = properties
        .into_iter()
        .flatten()
        .filter(|(_, schema)| schema["writeOnly"] == true);
    marked
        .filter_map(|(field, _)| subject.config.get(field)?.as_str())
        .flat_map(secrets_in)
        .collect()
}
