//! `devcluster-config-emit exec`: runs a command with values in place of references.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;

use clap::Parser;
use protocol::reference::script::{Script, in_command};
use protocol::reference::{Malformed, Part, Reference, parse};
use protocol::rundir::RunDir;
use protocol::{Env, Exit, Reports, StageError, Upstreams, program};
use serde_json::Value;

use crate::codes;
use crate::consumed::Consumed;
use crate::substitute::look_up;

const NAME: &str = "devcluster-config-emit exec";

/// Runs a command with the values of upstream instances in place of `${{ instance.path }}` in its arguments and in the
/// named environment variables. Waits for these instances first. In a script, the argument after `sh -c`, references
/// become variables, so that no value is read as script text.
#[derive(Parser)]
#[command(name = NAME, bin_name = NAME, after_help = "Example:
  devcluster-config-emit exec -- curl 'http://${{ tunnel.host }}:${{ tunnel.port }}/'")]
struct Cli {
    /// The run directory [default: as for `run`]
    #[arg(long, value_name = "DIR")]
    run_dir: Option<PathBuf>,
    /// Instances that references may name [default: all in the run directory]
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    upstreams: Vec<String>,
    /// An environment variable with references in its value; may be repeated
    #[arg(long, value_name = "VARIABLE")]
    env: Vec<String>,
    /// Record the used values under this name, so that config-emit restarts the stage when they change
    #[arg(long = "for", value_name = "STAGE")]
    noted: Option<String>,
    /// If an upstream fails, exit this much later [default: 0]
    #[arg(long, value_name = "SECONDS")]
    linger: Option<f64>,
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// The `exec` verb. Returns only if the command does not start.
pub(crate) fn main(args: Vec<OsString>) -> ExitCode {
    let cli = Cli::parse_from(args);
    program::run(NAME, async {
        let error = match prepare(&cli).await {
            Ok(mut command) => {
                let error = command.exec();
                let message = format!("cannot run {}", command.get_program().display());
                StageError::new(protocol::codes::PROGRAM_MISSING, message)
                    .hint("correct the command after `--`: a program on $PATH, or a path")
                    .source(&error)
            }
            Err(error) => error,
        };
        if let (Exit::Upstream, Some(seconds)) = (error.exit_code(), cli.linger) {
            program::say(error.render(NAME).trim_end());
            tokio::time::sleep(Duration::try_from_secs_f64(seconds).unwrap_or_default()).await;
            return Ok(Exit::Upstream as u8);
        }
        Err(error)
    })
}

async fn prepare(cli: &Cli) -> Result<Command, StageError> {
    let env = Env::from_process();
    let variables = cli.env.iter();
    let variables = variables.filter_map(|name| Some((name.clone(), env.get(name)?.to_owned())));
    let variables: BTreeMap<String, String> = variables.collect();
    let run_dir = cli.run_dir.clone();
    let run_dir = RunDir::open(&run_dir.unwrap_or_else(|| env.default_run_dir()))?;
    let names = match cli.upstreams.as_slice() {
        [] => run_dir.instances(),
        names => names.to_vec(),
    };
    let texts = cli.command.iter().chain(variables.values());
    let needed = instances(texts, &names)?;
    let reports = match needed.is_empty() {
        true => Reports::new(),
        false => {
            let upstreams = Upstreams::from_run_dir(run_dir.clone(), String::new(), "");
            upstreams.wait(&needed).await?
        }
    };
    let mut substitution = Substitution {
        reports: &reports,
        consumed: BTreeMap::new(),
        has_script: false,
    };
    let command = substitution.command(&cli.command, &variables)?;
    if let Some(name) = &cli.noted {
        Consumed::new(name, substitution.consumed, &command).replace(&run_dir)?;
    }
    Ok(command)
}

fn instances<'a>(
    texts: impl Iterator<Item = &'a String>,
    names: &[String],
) -> Result<Vec<String>, StageError> {
    let mut needed = Vec::new();
    for text in texts {
        for part in parts(text)? {
            if let Part::Reference(reference) = part {
                let named = reference.resolve(names.iter().map(String::as_str));
                let (name, _) = named.map_err(|why| invalid(reference.written, &why))?;
                needed.push(name.to_owned());
            }
        }
    }
    needed.sort();
    needed.dedup();
    Ok(needed)
}

struct Substitution<'a> {
    reports: &'a Reports,
    consumed: BTreeMap<String, Value>,
    /// A script gets values in variables.
    has_script: bool,
}

impl Substitution<'_> {
    fn command(
        &mut self,
        words: &[String],
        variables: &BTreeMap<String, String>,
    ) -> Result<Command, StageError> {
        let texts: Vec<&str> = words.iter().map(String::as_str).collect();
        let scripts = texts.iter().enumerate().map(|(i, word)| {
            let script = in_command(&texts, i).map_err(|m| malformed(word, &m))?;
            Ok((*word, script))
        });
        let scripts: Vec<(&str, Option<Script>)> = scripts.collect::<Result<_, StageError>>()?;
        self.has_script = scripts.iter().any(|(_, script)| script.is_some());
        let mut filled = Vec::new();
        let mut environment = Vec::new();
        for (word, script) in scripts {
            let Some(script) = script else {
                filled.push(self.text(word)?);
                continue;
            };
            for (name, written) in script.variables {
                environment.push((name, self.text(&written)?));
            }
            filled.push(script.text);
        }
        for (name, text) in variables {
            environment.push((name.clone(), self.text(text)?));
        }
        let (program, arguments) = filled
            .split_first()
            .ok_or_else(|| StageError::internal("no command"))?;
        let mut command = Command::new(program);
        command.args(arguments).envs(environment);
        Ok(command)
    }

    fn text(&mut self, text: &str) -> Result<String, StageError> {
        let mut out = String::new();
        for part in parts(text)? {
            match part {
                Part::Text(plain) => out.push_str(plain),
                Part::Dollars(count) => out.extend(std::iter::repeat_n('$', count / 2)),
                Part::Reference(reference) => out.push_str(&self.value(&reference)?),
            }
        }
        Ok(out)
    }

    /// The value as text: a list or a mapping as JSON.
    fn value(&mut self, reference: &Reference<'_>) -> Result<String, StageError> {
        let value =
            look_up(reference, self.reports).map_err(|why| invalid(reference.written, &why))?;
        self.consumed
            .insert(reference.written.to_owned(), value.clone());
        match value {
            Value::String(text) if text.contains('\0') => Err(invalid(
                reference.written,
                "its value contains a NUL, which no program can receive",
            )),
            Value::String(text) if self.has_script && text.contains(['$', '`']) => Err(invalid(
                reference.written,
                "its value contains `$` or a backtick, which a shell could run in an arithmetic expression; pass all values as \
        arguments of the script, `sh -c '… \"$1\"' sh ${{ … }}`",
            )),
            Value::String(text) => Ok(text),
            Value::Null => Err(invalid(reference.written, "is empty (null)")),
            other => Ok(other.to_string()),
        }
    }
}

fn parts(text: &str) -> Result<Vec<Part<'_>>, StageError> {
    parse(text).map_err(|m| malformed(text, &m))
}

fn malformed(text: &str, malformed: &Malformed) -> StageError {
    invalid(
        text.get(malformed.range.clone()).unwrap_or(text),
        &malformed.message,
    )
}

fn invalid(written: &str, why: &str) -> StageError {
    StageError::new(codes::BAD_REFERENCE, format!("{written}: {why}"))
        .hint("write a reference as `${{ instance.path }}`, and other text as `$${{`")
}
