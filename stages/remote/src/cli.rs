//! The driver's command line.

mod command;

use std::ffi::OsString;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::ArgMatches;
use clap_complete::Shell;
use protocol::{Env, Exit, StageError, files, program};
use serde_json::Value;

use crate::doctor::{Format, doctor};
use crate::flat::FLAT_FLAGS;
use crate::host::Host;
use crate::input::{Asked, load};
use crate::kinds::Programs;
use crate::up::{Wishes, up};
use crate::{gc, manual, migrate, plugins, schema, status};
use command::{NAME, apart, command};
use protocol::program::say;

/// The whole of `main`.
pub fn main() -> ExitCode {
    let mut args: Vec<OsString> = std::env::args_os().collect();
    if args.get(1).is_some_and(|a| a == "host") {
        args.drain(..2);
        args.insert(0, format!("{NAME} host").into());
        return protocol::run_stage_from::<Host>(args);
    }
    if let Some(name) = args.get(1).and_then(|a| apart(a.to_str()?)) {
        return program::run(NAME, async { Err(exec(name, &args[2..])) });
    }
    let matches = match command().try_get_matches_from(args) {
        Ok(matches) => matches,
        Err(error) => {
            // Help goes to stdout, complaints to stderr; there is no third place to complain about those.
            drop(error.print());
            return ExitCode::from(if error.use_stderr() {
                Exit::Usage
            } else {
                Exit::Ok
            } as u8);
        }
    };
    program::run(NAME, dispatch(&matches))
}

/// Becomes a program that is called by a verb of ours, as git's are.
fn exec(name: &str, args: &[OsString]) -> StageError {
    match program::find(name, &Env::of_process()) {
        Ok(path) => {
            let error = std::process::Command::new(&path).args(args).exec();
            StageError::io(format!("cannot start {}", path.display()), &error)
        }
        Err(error) => error,
    }
}

async fn dispatch(matches: &ArgMatches) -> Result<u8, StageError> {
    let env = Env::of_process();
    let beside = own_directory()?;
    let programs = Programs {
        beside: &beside,
        env: &env,
    };
    match matches.subcommand() {
        Some(("compile", m)) => compile(m, &programs).await,
        Some(("up", m)) => {
            let job = load(&asked(m), &programs).await?;
            let wishes = Wishes {
                i_know: m.get_flag("i-know"),
                dry_run: m.get_flag("dry-run"),
                no_preflight: m.get_flag("no-preflight"),
                arguments: values(m, "devcluster"),
            };
            up(job, wishes, &programs).await
        }
        Some(("doctor", m)) => {
            let format = if is_json(m) {
                Format::Json
            } else {
                Format::Text
            };
            doctor(&asked(m), format, &programs).await
        }
        Some(("status", m)) => {
            let wishes = status::Wishes {
                run_dir: run_dir(m, &programs).await?,
                watch: m.get_flag("watch"),
                check: m.get_flag("check"),
                format: match is_json(m) {
                    true => status::Format::Json,
                    false => status::Format::Text,
                },
            };
            status::status(&wishes, &programs).await
        }
        Some(("gc", m)) => collect(m, &programs).await,
        Some(("migrate", m)) => {
            let mut asked = asked(m);
            asked.file = asked.file.or(m.get_one::<PathBuf>("file").cloned());
            let text = migrate::migrate(&asked, &programs).await?;
            if let Some(out) = m.get_one::<PathBuf>("out").filter(|out| out.exists()) {
                let message = format!("{} is there already", out.display());
                return Err(StageError::new("remote.out_exists", message)
                    .hint("name another file with --out, or move that one away")
                    .exit(Exit::Usage));
            }
            deliver(m, text.as_bytes())
        }
        Some(("schema", m)) => {
            let text = serde_json::to_string_pretty(&schema::schema(&programs).await?)
                .unwrap_or_default()
                + "\n";
            let code = deliver(m, text.as_bytes())?;
            if let Some(out) = m.get_one::<PathBuf>("out") {
                let path = std::path::absolute(out).unwrap_or_else(|_| out.clone());
                let line = format!("# yaml-language-server: $schema={}", path.display());
                say(&format!(
                    "put this line on top of the file, for the editor\n{line}"
                ));
            }
            Ok(code)
        }
        Some(("completions", m)) => {
            let shell = *m.get_one::<Shell>("shell").unwrap_or(&Shell::Bash);
            let dir = m.get_one::<PathBuf>("dir").map(PathBuf::as_path);
            manual::completions(command(), shell, dir, &programs)
                .await
                .map(|()| Exit::Ok as u8)
        }
        Some(("man", m)) => {
            let dir = m.get_one::<PathBuf>("dir").map(PathBuf::as_path);
            manual::man(command(), dir, &programs)
                .await
                .map(|()| Exit::Ok as u8)
        }
        _ => Err(StageError::internal("a command without a body")),
    }
}

/// The stage binaries are beside our own.
fn own_directory() -> Result<PathBuf, StageError> {
    let own =
        std::env::current_exe().map_err(|e| StageError::io("cannot find our own path", &e))?;
    Ok(own.parent().map(Path::to_owned).unwrap_or_default())
}

async fn compile(m: &ArgMatches, programs: &Programs<'_>) -> Result<u8, StageError> {
    let job = load(&asked(m), programs).await?;
    if m.get_flag("with-plugins") {
        plugins::check(&job, programs.env).await?;
    }
    for warning in &job.compiled.plan.warnings {
        say(&format!("warning: {warning}"));
    }
    let text = job.compiled.text.as_bytes();
    let written = match m.get_one::<PathBuf>("out") {
        Some(out) if is_same(out, &job.file) => {
            let message = format!("{} is what is compiled", out.display());
            return Err(StageError::new("remote.out_is_source", message)
                .hint("name another file with --out: the source would be lost")
                .exit(Exit::Usage));
        }
        Some(out) => files::replace(out, text, false),
        None => std::io::stdout().write_all(text),
    };
    written.map_err(|e| StageError::io("cannot write the compiled file", &e))?;
    Ok(Exit::Ok as u8)
}

fn is_same(one: &Path, other: &Path) -> bool {
    let whole = |path: &Path| path.canonicalize().ok();
    whole(one).is_some_and(|one| Some(one) == whole(other))
}

/// To the file that was named, else to stdout.
fn deliver(m: &ArgMatches, content: &[u8]) -> Result<u8, StageError> {
    match m.get_one::<PathBuf>("out") {
        Some(out) => manual::write(out, content)?,
        None => manual::print(content)?,
    }
    Ok(Exit::Ok as u8)
}

async fn collect(m: &ArgMatches, programs: &Programs<'_>) -> Result<u8, StageError> {
    let run_dir = run_dir(m, programs).await?;
    if m.get_flag("dry-run") {
        say(&gc::foresee(run_dir.as_deref(), programs).await);
        return Ok(Exit::Ok as u8);
    }
    let ended = gc::end_orphans(programs.env, run_dir.as_deref()).await;
    ended.iter().for_each(|line| say(line));
    let swept = gc::sweep(run_dir.as_deref(), programs).await?;
    gc::forget_killed(run_dir.as_deref(), programs).await;
    say(&swept.report());
    Ok(if swept.left.is_empty() {
        Exit::Ok
    } else {
        Exit::Failed
    } as u8)
}

fn is_json(m: &ArgMatches) -> bool {
    m.get_one::<String>("format").is_some_and(|f| f == "json")
}

/// The run directory that was named, or that of a file.
async fn run_dir(m: &ArgMatches, programs: &Programs<'_>) -> Result<Option<PathBuf>, StageError> {
    let file = m.get_one::<PathBuf>("config").cloned();
    let named = m.get_one::<PathBuf>("run-dir").cloned();
    let run_dir = match (named, file) {
        (Some(named), _) => Some(named),
        (None, None) => None,
        (None, file) => {
            let asked = Asked {
                file,
                ..Asked::default()
            };
            Some(load(&asked, programs).await?.run_dir(programs.env))
        }
    };
    Ok(run_dir.map(|d| std::path::absolute(&d).unwrap_or(d)))
}

fn asked(m: &ArgMatches) -> Asked {
    let given = |key: &str| {
        m.get_one::<String>(key)
            .map(|v| (key.to_owned(), Value::String(v.clone())))
    };
    Asked {
        file: m.get_one::<PathBuf>("config").cloned(),
        flags: FLAT_FLAGS
            .iter()
            .filter_map(|(key, _)| given(key))
            .collect(),
    }
}

fn values(m: &ArgMatches, id: &str) -> Vec<OsString> {
    m.get_many::<OsString>(id)
        .into_iter()
        .flatten()
        .cloned()
        .collect()
}
