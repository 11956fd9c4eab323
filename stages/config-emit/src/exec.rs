//! `devcluster-config-emit exec`: a command with values in the places of its references.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Arg, ArgMatches, Command, value_parser};
use protocol::reference::script::{Script, in_command};
use protocol::reference::{Malformed, Part, Reference, is_templated, parse};
use protocol::rundir::RunDir;
use protocol::{Env, Exit, Reports, StageError, Upstreams};
use serde_json::Value;

use crate::fill::look_up;
use crate::used::Used;

const NAME: &str = "devcluster-config-emit exec";

fn command() -> Command {
    let text = |name: &'static str, help: &'static str| Arg::new(name).long(name).help(help);
    Command::new(NAME)
        .bin_name(NAME)
        .about(
            "Becomes a command, with the values of upstream instances in the places of `${{ instance.path }}` in its \
             arguments, and in the environment variables that are named. Waits for these instances first. In a script, the \
             argument after `sh -c`, references become variables, so that no value is text of the script.",
        )
        .after_help(
            "Example:\n  devcluster-config-emit exec -- curl 'http://${{ tunnel.host }}:${{ tunnel.port }}/'",
        )
        .arg(
            text("run-dir", "Where the stages of one devcluster meet [default: as for `run`]")
                .value_name("DIR")
                .value_parser(value_parser!(PathBuf)),
        )
        .arg(
            text("upstreams", "Instances that may be meant [default: all in the run directory]")
                .value_name("NAME,…")
                .value_delimiter(','),
        )
        .arg(
            text("env", "An environment variable with references in its value; may be repeated")
                .value_name("VARIABLE")
                .action(clap::ArgAction::Append),
        )
        .arg(
            text("for", "Note what is used, under this name, so that config-emit restarts the stage when that changes")
                .value_name("STAGE"),
        )
        .arg(
            text("linger", "When an upstream fails, end this much later [default: 0]")
                .value_name("SECONDS")
                .value_parser(value_parser!(f64)),
        )
        .arg(
            Arg::new("command")
                .last(true)
                .required(true)
                .num_args(1..)
                .value_name("COMMAND")
                .value_parser(value_parser!(String)),
        )
}

/// The whole of the verb. Returns only when the command did not start.
pub(crate) fn main(args: Vec<OsString>) -> ExitCode {
    let matches = match command().try_get_matches_from(args) {
        Ok(matches) => matches,
        Err(error) => {
            drop(error.print());
            let code = if error.use_stderr() {
                Exit::Usage
            } else {
                Exit::Ok
            };
            return ExitCode::from(code as u8);
        }
    };
    let error = match prepare(&matches) {
        Ok(mut command) => {
            let error = command.exec();
            let program = command.get_program().to_string_lossy().into_owned();
            StageError::new("config_emit.no_command", format!("cannot run {program}"))
                .source(&error)
                .exit(Exit::Usage)
        }
        Err(error) => error,
    };
    drop(std::io::stderr().write_all(error.render(NAME).as_bytes()));
    if let (Exit::Upstream, Some(seconds)) = (error.exit_code(), matches.get_one::<f64>("linger")) {
        std::thread::sleep(Duration::try_from_secs_f64(*seconds).unwrap_or_default());
    }
    ExitCode::from(error.exit_code() as u8)
}

fn prepare(matches: &ArgMatches) -> Result<std::process::Command, StageError> {
    let env = Env::of_process();
    let list = |id: &str| -> Vec<String> {
        matches
            .get_many::<String>(id)
            .into_iter()
            .flatten()
            .cloned()
            .collect()
    };
    let words = list("command");
    let variables: BTreeMap<String, String> = list("env")
        .into_iter()
        .filter_map(|name| Some((name.clone(), env.get(&name)?.to_owned())))
        .collect();
    let run_dir = matches.get_one::<PathBuf>("run-dir").cloned();
    let run_dir = RunDir::open(&run_dir.unwrap_or_else(|| env.default_run_dir()))?;
    let mut texts: Vec<&str> = words.iter().map(String::as_str).collect();
    texts.extend(variables.values().map(String::as_str));
    let names = match list("upstreams") {
        names if names.is_empty() => run_dir.instances(),
        names => names,
    };
    let wanted = instances(&texts, &names)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| StageError::io("cannot start the runtime", &e))?;
    let upstreams = Upstreams::of_run_dir(run_dir.clone(), String::new(), "");
    let reports = match wanted.is_empty() {
        true => Reports::new(),
        false => runtime.block_on(upstreams.wait(&wanted))?,
    };
    let mut filled = Filled {
        reports: &reports,
        used: BTreeMap::new(),
        has_script: false,
    };
    let command = filled.command(&words, &variables)?;
    if let Some(name) = matches.get_one::<String>("for") {
        let used = Used::now(name, filled.used, &command);
        used.replace(&run_dir)?;
    }
    Ok(command)
}

fn instances(texts: &[&str], names: &[String]) -> Result<Vec<String>, StageError> {
    let mut wanted = Vec::new();
    for text in texts.iter().filter(|t| is_templated(t)) {
        for part in parse(text).map_err(|m| malformed(text, &m))? {
            if let Part::Reference(reference) = part {
                let known = names.iter().map(String::as_str);
                let (name, _) = reference
                    .resolve(known)
                    .map_err(|why| bad(reference.written, &why))?;
                wanted.push(name.to_owned());
            }
        }
    }
    wanted.sort();
    wanted.dedup();
    Ok(wanted)
}

struct Filled<'a> {
    reports: &'a Reports,
    used: BTreeMap<String, Value>,
    /// A shell gets values in variables.
    has_script: bool,
}

impl Filled<'_> {
    fn command(
        &mut self,
        words: &[String],
        variables: &BTreeMap<String, String>,
    ) -> Result<std::process::Command, StageError> {
        let texts: Vec<&str> = words.iter().map(String::as_str).collect();
        let scripts = texts.iter().enumerate().map(|(i, word)| {
            let script = in_command(&texts, i);
            script.map_err(|m| malformed(word, &m))
        });
        let scripts: Vec<Option<Script>> = scripts.collect::<Result<_, _>>()?;
        self.has_script = scripts.iter().any(Option::is_some);
        let mut filled = Vec::new();
        let mut environment = Vec::new();
        for (word, script) in words.iter().zip(scripts) {
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
        let mut command = std::process::Command::new(program);
        command.args(arguments).envs(environment);
        Ok(command)
    }

    fn text(&mut self, text: &str) -> Result<String, StageError> {
        if !is_templated(text) {
            return Ok(text.to_owned());
        }
        let mut out = String::new();
        for part in parse(text).map_err(|m| malformed(text, &m))? {
            match part {
                Part::Text(plain) => out.push_str(plain),
                Part::Dollars(count) => out.extend(std::iter::repeat_n('$', count / 2)),
                Part::Reference(reference) => out.push_str(&self.value(&reference)?),
            }
        }
        Ok(out)
    }

    /// Everything is text here: a list or a mapping is JSON.
    fn value(&mut self, reference: &Reference<'_>) -> Result<String, StageError> {
        let value = look_up(reference, self.reports).map_err(|why| bad(reference.written, &why))?;
        self.used
            .insert(reference.written.to_owned(), value.clone());
        match value {
            Value::String(text) if text.contains('\0') => Err(bad(
                reference.written,
                "its value has a NUL in it: no program can get that",
            )),
            Value::String(text) if self.has_script && text.contains(['$', '`']) => Err(bad(
                reference.written,
                "its value has `$` or a backtick in it, which a shell that calculates with it could run; pass all values as \
                 arguments of the script, `sh -c '… \"$1\"' sh ${{ … }}`",
            )),
            Value::String(text) => Ok(text),
            Value::Null => Err(bad(reference.written, "is empty (null)")),
            other => Ok(other.to_string()),
        }
    }
}

fn malformed(text: &str, malformed: &Malformed) -> StageError {
    bad(
        text.get(malformed.range.clone()).unwrap_or(text),
        &malformed.message,
    )
}

fn bad(written: &str, why: &str) -> StageError {
    StageError::new("config_emit.bad_reference", format!("{written}: {why}"))
        .hint("a reference is `${{ instance.path }}`; `$${{` is for what is none")
        .exit(Exit::Usage)
}
