//! The driver's command line.

mod help;

use std::cell::RefCell;
use std::ffi::OsString;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum as _};
use clap_complete::Shell;
use protocol::program::say;
use protocol::{Env, Exit, StageError, files, program};

use crate::codes;
use crate::doctor::doctor;
use crate::explain::explain;
use crate::format::{Format, Formatted};
use crate::host::Host;
use crate::input::{CompiledInput, InputArgs, load, run_dir_of};
use crate::kinds::Programs;
use crate::{gc, manual, migrate, plugins, schema, status, up};

const NAME: &str = "devcluster-remote";

/// Work on Determined against a remote Kubernetes cluster: one file in, a running cluster out
#[derive(Parser)]
#[command(name = NAME, version, after_help = help::EXAMPLES, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Compile, run stock devcluster, and clean up after it
    #[command(after_help = help::UP)]
    Up {
        #[command(flatten)]
        args: InputArgs,
        #[command(flatten)]
        options: up::UpOptions,
    },
    /// Print the devcluster.yaml that stock devcluster gets; of the stages, only `describe` and `validate` run
    Compile {
        #[command(flatten)]
        args: InputArgs,
        /// Run `describe` and `validate` of each plugin and check its `with` against what they say
        #[arg(long)]
        with_plugins: bool,
        /// Write it to this file instead, with mode 0600
        #[arg(short, long, value_name = "PATH")]
        out: Option<PathBuf>,
    },
    /// Check everything that a run needs: on this machine, on the ssh server, on the cluster
    #[command(after_help = help::DOCTOR)]
    Doctor {
        #[command(flatten)]
        args: InputArgs,
        #[command(flatten)]
        formatted: Formatted,
    },
    /// Remove what dead runs left on this machine, on ssh servers and on clusters
    #[command(after_help = help::GC)]
    Gc {
        #[command(flatten)]
        place: RunDirArgs,
        /// List what is left on this machine, on the server and on the cluster; remove nothing
        #[arg(long)]
        dry_run: bool,
        /// Also remove what running tasks depend on, and forget who the instances are
        #[arg(long)]
        now: bool,
    },
    /// Show the phase, outputs, health and last error of each stage
    #[command(after_help = help::STATUS)]
    Status {
        #[command(flatten)]
        place: RunDirArgs,
        #[command(flatten)]
        options: status::StatusOptions,
    },
    /// Print a remote_connect.yaml in the new form, with comments that explain it
    #[command(after_help = help::MIGRATE)]
    Migrate {
        /// The remote_connect.yaml
        #[arg(value_name = "FILE", conflicts_with = "config")]
        file: Option<PathBuf>,
        #[command(flatten)]
        args: InputArgs,
        /// Write it to this file instead
        #[arg(short, long, value_name = "PATH")]
        out: Option<PathBuf>,
    },
    /// Print one JSON Schema for the whole file, so that an editor completes and checks it
    #[command(after_help = help::SCHEMA)]
    Schema {
        /// Write it to this file instead
        #[arg(short, long, value_name = "PATH")]
        out: Option<PathBuf>,
    },
    /// Print completions for a shell, of this program and of the stages
    #[command(after_help = help::COMPLETIONS)]
    Completions {
        /// The shell
        #[arg(value_name = "SHELL", value_parser = shells())]
        shell: Shell,
        /// Write a file for each program into this directory
        #[arg(long, value_name = "PATH")]
        dir: Option<PathBuf>,
    },
    /// Print the man page, or write those of every program and verb
    #[command(after_help = help::MAN)]
    Man {
        /// Write a page for each program and verb into this directory
        #[arg(long, value_name = "PATH")]
        dir: Option<PathBuf>,
    },
    /// Say what an error code means and what to do about it, or list all codes
    #[command(after_help = help::EXPLAIN)]
    Explain {
        /// Such as tunnel.server_busy [default: a list of all]
        #[arg(value_name = "CODE")]
        code: Option<String>,
        #[command(flatten)]
        formatted: Formatted,
    },
    /// Run a plugin, a program that knows only the wire of PROTOCOL.md, as a stage
    Host,
    /// Try everything without a cluster and a server: a local sshd, stand-ins for the rest
    Sandbox(ExternalVerb),
    /// Check a stage in any language against PROTOCOL.md, from outside
    Conformance(ExternalVerb),
}

/// Selects a devcluster.
#[derive(Args)]
struct RunDirArgs {
    /// Only the stages of this file [default: all of this user]
    #[arg(
        short,
        long,
        visible_alias = "config-file",
        value_name = "FILE",
        conflicts_with = "run_dir"
    )]
    config: Option<PathBuf>,
    /// Only the stages of this run directory
    #[arg(long, value_name = "PATH")]
    run_dir: Option<PathBuf>,
}

/// A verb that is a separate program, which gets the following arguments.
#[derive(Args)]
struct ExternalVerb {
    /// Arguments of the program; --help lists them
    #[arg(value_name = "ARGS")]
    args: Vec<OsString>,
}

fn shells() -> impl TypedValueParser<Value = Shell> {
    PossibleValuesParser::new(["bash", "zsh", "fish"])
        .map(|name| Shell::from_str(&name, false).unwrap_or(Shell::Bash))
}

/// The whole of `main`.
pub fn main() -> ExitCode {
    let mut args: Vec<OsString> = std::env::args_os().collect();
    match args.get(1).and_then(|verb| verb.to_str()) {
        Some("host") => {
            args.drain(..2);
            args.insert(0, format!("{NAME} host").into());
            return protocol::run_stage_from::<Host>(args);
        }
        Some(verb @ ("sandbox" | "conformance")) => {
            let name = format!("devcluster-{verb}");
            return program::run(NAME, async { Err(exec(&name, &args[2..])) });
        }
        _ => {}
    }
    match Cli::try_parse_from(args) {
        Ok(cli) => program::run(NAME, dispatch(cli.verb)),
        Err(error) => {
            // Help goes to stdout, errors to stderr. When this fails, there is no other stream to report it on.
            drop(error.print());
            let exit = if error.use_stderr() {
                Exit::Usage
            } else {
                Exit::Ok
            };
            ExitCode::from(exit as u8)
        }
    }
}

/// Replaces this process by the program of a verb.
fn exec(name: &str, args: &[OsString]) -> StageError {
    match program::find(name, &Env::from_process()) {
        Ok(path) => {
            let error = std::process::Command::new(&path).args(args).exec();
            StageError::io(format!("cannot start {}", path.display()), &error)
        }
        Err(error) => error,
    }
}

async fn dispatch(verb: Verb) -> Result<u8, StageError> {
    let own = std::env::current_exe()
        .map_err(|e| StageError::io("cannot find the path of this program", &e))?;
    let env = Env::from_process();
    let programs = &Programs {
        beside: own.parent().unwrap_or(Path::new("/")),
        env: &env,
        own_only: false,
        early: RefCell::default(),
    };
    match verb {
        Verb::Up { args, options } => {
            let mut early = None;
            let was_read = |file: &_| early = up::start_early(file, &options, &env);
            let input = load(&args, programs, was_read).await?;
            return up::up(input, options, early, programs).await;
        }
        Verb::Compile {
            args,
            with_plugins,
            out,
        } => {
            compile(
                load(&args, programs, |_| ()).await?,
                with_plugins,
                out,
                &env,
            )
            .await?
        }
        Verb::Doctor { args, formatted } => {
            return doctor(&args, formatted.format, programs).await;
        }
        Verb::Status { place, options } => {
            let run_dir = run_dir(place, &env)?;
            return status::status(run_dir.as_deref(), &options, programs).await;
        }
        Verb::Gc {
            place,
            dry_run,
            now,
        } => {
            let run_dir = run_dir(place, &env)?;
            if !dry_run {
                return Ok(gc::gc(run_dir.as_deref(), now, programs).await);
            }
            say(&gc::preview(run_dir.as_deref(), now, programs).await);
        }
        Verb::Migrate {
            file,
            mut args,
            out,
        } => {
            args.config = args.config.or(file);
            let text = migrate::migrate(&args, programs).await?;
            if let Some(out) = out.as_ref().filter(|out| out.exists()) {
                let message = format!("{} exists already", out.display());
                return Err(StageError::new(codes::OUT_EXISTS, message));
            }
            manual::write_out(out.as_deref(), text.as_bytes())?;
        }
        Verb::Schema { out } => {
            let schema = schema::schema(programs).await?;
            let text = serde_json::to_string_pretty(&schema).unwrap_or_default() + "\n";
            manual::write_out(out.as_deref(), text.as_bytes())?;
            if let Some(out) = out {
                let path = std::path::absolute(&out).unwrap_or(out);
                let line = format!("# yaml-language-server: $schema={}", path.display());
                say(&format!(
                    "put this line at the top of the file, for the editor\n{line}"
                ));
            }
        }
        Verb::Explain { code, formatted } => {
            let json = formatted.format == Format::Json;
            let text = explain(code.as_deref(), json, programs).await?;
            manual::write_out(None, text.as_bytes())?;
        }
        Verb::Completions { shell, dir } => {
            manual::completions(Cli::command(), shell, dir.as_deref(), programs).await?;
        }
        Verb::Man { dir } => manual::man(Cli::command(), dir.as_deref(), programs).await?,
        Verb::Host | Verb::Sandbox(_) | Verb::Conformance(_) => {
            return Err(StageError::internal("a verb that is another program"));
        }
    }
    Ok(Exit::Ok as u8)
}

async fn compile(
    mut input: CompiledInput,
    with_plugins: bool,
    out: Option<PathBuf>,
    env: &Env,
) -> Result<(), StageError> {
    if with_plugins {
        plugins::check(&mut input, env).await?;
    }
    for warning in &input.compiled.plan.warnings {
        say(&format!("warning: {warning}"));
    }
    let text = input.compiled.text.as_bytes();
    let whole = |path: &Path| path.canonicalize().ok();
    let written = match out {
        Some(out) if whole(&out).is_some_and(|out| Some(out) == whole(&input.file)) => {
            let message = format!("{} is the file to compile", out.display());
            return Err(StageError::new(protocol::codes::USAGE, message)
                .hint("name another file with --out: this one would be overwritten"));
        }
        Some(out) => files::replace(&out, text, false),
        None => std::io::stdout().write_all(text),
    };
    written.map_err(|e| StageError::io("cannot write the compiled file", &e))
}

/// The run directory of `--run-dir`, or of a file.
fn run_dir(place: RunDirArgs, env: &Env) -> Result<Option<PathBuf>, StageError> {
    let of_file = |file: PathBuf| run_dir_of(&file, env);
    let run_dir = match place.run_dir {
        Some(named) => Some(named),
        None => place.config.map(of_file).transpose()?,
    };
    let canonical = |dir: PathBuf| dir.canonicalize().or_else(|_| std::path::absolute(&dir));
    let failed = |e| StageError::io("cannot find the run directory", &e);
    run_dir.map(canonical).transpose().map_err(failed)
}
