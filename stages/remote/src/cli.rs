//! The driver's command line.

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use protocol::{Env, Exit, StageError, files};
use serde_json::Value;

use crate::doctor::{Format, doctor};
use crate::host::Host;
use crate::input::{Asked, FLAT_FLAGS, load};
use crate::say::say;
use crate::up::{Wishes, up};
use crate::{conformance, gc, plugins, sandbox, status};

const NAME: &str = "devcluster-remote";

const EXAMPLES: &str = "Examples:
  devcluster-remote sandbox                      try it all, with no cluster and no server
  devcluster-remote up -c devcluster.yaml        a file that lists tunnel, gateway and config-emit stages
  devcluster-remote up -c remote_connect.yaml    the flat file of the Python tool
  devcluster-remote compile -c devcluster.yaml   see what stock devcluster will get";

const UP: &str = "\
At a terminal the stages first look at what they need, as `doctor` shows it, and ask what is for you to decide; then \
devcluster has the terminal: a digit says how far it is up, `q` quits. Without a terminal devcluster runs with --oneshot, \
and the exit code is 1 when a stage fails. SIGTERM ends it in good order; what could not be given back is undone or named.

Examples:
  devcluster-remote up -c devcluster.yaml --dry-run
  devcluster-remote up -c devcluster.yaml -- --target-stage db
  devcluster-remote up --reverse-proxy-host proxy.example.com --remote-port-range 8000,9000";

const DOCTOR: &str = "\
Every stage of the file looks at what it needs, all of them side by side, in seconds; nothing is changed and nothing is \
left. Each line is ✓ there, ✗ missing, with the mend, or – not looked at, with the reason. The exit code is 5 when \
something is missing. It may be run while the cluster is up.

Examples:
  devcluster-remote doctor                        this machine alone
  devcluster-remote doctor -c devcluster.yaml     also what its stages need
  devcluster-remote doctor -c devcluster.yaml --format json | jq '.checks[] | select(.status == \"failed\")'";

const STATUS: &str = "\
A stage is starting, preparing, ready, degraded (what it reported does not hold for the moment, and it works on it), \
stopping, stopped, failed, or killed (it died without a word; `devcluster-remote gc` undoes what it left). The exit code is \
5 when one is degraded, failed or killed.

Examples:
  devcluster-remote status --watch
  devcluster-remote status -c devcluster.yaml --check
  devcluster-remote status --format json | jq '.run_dirs[].instances[] | {stage, phase}'";

const GC: &str = "\
Whatever a stage makes outside of itself it first writes into a ledger in $XDG_STATE_HOME/devcluster-stages. Here the ledgers \
of dead runs are read, and each stage undoes its own: the end of an ssh session on the server, a Lease and a Gateway on the \
cluster, files here. What a stage that runs has made is left alone. The exit code is 1 when something could not be undone; \
it can be tried again.";

/// The whole of `main`.
pub fn main() -> ExitCode {
    let mut args: Vec<OsString> = std::env::args_os().collect();
    if args.get(1).is_some_and(|a| a == "host") {
        args.drain(..2);
        args.insert(0, format!("{NAME} host").into());
        return protocol::run_stage_from::<Host>(args);
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
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    else {
        return ExitCode::from(Exit::Internal as u8);
    };
    let code = match runtime.block_on(dispatch(&matches)) {
        Ok(code) => code,
        Err(error) => {
            say(error.render(NAME).trim_end());
            error.exit_code() as u8
        }
    };
    runtime.shutdown_background();
    ExitCode::from(code)
}

async fn dispatch(matches: &ArgMatches) -> Result<u8, StageError> {
    let env = Env::of_process();
    let programs = programs()?;
    match matches.subcommand() {
        Some(("compile", m)) => compile(m, &env, &programs).await,
        Some(("up", m)) => {
            let job = load(&asked(m), &env, &programs)?;
            let wishes = Wishes {
                i_know: m.get_flag("i-know"),
                dry_run: m.get_flag("dry-run"),
                no_preflight: m.get_flag("no-preflight"),
                arguments: values(m, "devcluster"),
            };
            up(job, wishes, &env, &programs).await
        }
        Some(("doctor", m)) => {
            let format = if is_json(m) {
                Format::Json
            } else {
                Format::Text
            };
            doctor(&asked(m), format, &env, &programs).await
        }
        Some(("status", m)) => {
            let wishes = status::Wishes {
                run_dir: run_dir(m, &env, &programs)?,
                watch: m.get_flag("watch"),
                check: m.get_flag("check"),
                format: match is_json(m) {
                    true => status::Format::Json,
                    false => status::Format::Text,
                },
            };
            status::status(&wishes, &env, &programs).await
        }
        Some(("conformance", m)) => conformance::run(m, &env).await,
        Some(("gc", m)) => collect(m, &env, &programs).await,
        Some(("sandbox", m)) => sandbox::show::run(m.get_flag("check"), &env, &programs).await,
        Some(("sandbox-master", m)) => sandbox::show::master(&path(m, "config-file")).await,
        Some(("sandbox-pod", m)) => {
            let seconds = m.get_one::<u64>("every").copied();
            sandbox::show::pod(&path(m, "config-file"), seconds.map(Duration::from_secs)).await
        }
        _ => Err(StageError::internal("a command without a body")),
    }
}

/// The stage binaries are beside our own.
fn programs() -> Result<PathBuf, StageError> {
    let own =
        std::env::current_exe().map_err(|e| StageError::io("cannot find our own path", &e))?;
    Ok(own.parent().map(Path::to_owned).unwrap_or_default())
}

async fn compile(m: &ArgMatches, env: &Env, programs: &Path) -> Result<u8, StageError> {
    let job = load(&asked(m), env, programs)?;
    if m.get_flag("with-plugins") {
        plugins::check(&job, env).await?;
    }
    for warning in &job.compiled.plan.warnings {
        say(&format!("warning: {warning}"));
    }
    let text = job.compiled.text.as_bytes();
    let written = match m.get_one::<PathBuf>("out") {
        Some(out) => files::replace(out, text, false),
        None => std::io::stdout().write_all(text),
    };
    written.map_err(|e| StageError::io("cannot write the compiled file", &e))?;
    Ok(Exit::Ok as u8)
}

async fn collect(m: &ArgMatches, env: &Env, programs: &Path) -> Result<u8, StageError> {
    let run_dir = run_dir(m, env, programs)?;
    if m.get_flag("dry-run") {
        say(&gc::foresee(env, run_dir.as_deref()));
        return Ok(Exit::Ok as u8);
    }
    let swept = gc::sweep(env, run_dir.as_deref(), programs).await?;
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
fn run_dir(m: &ArgMatches, env: &Env, programs: &Path) -> Result<Option<PathBuf>, StageError> {
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
            Some(load(&asked, env, programs)?.run_dir(env))
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

fn path(m: &ArgMatches, id: &str) -> PathBuf {
    m.get_one::<PathBuf>(id).cloned().unwrap_or_default()
}

fn command() -> Command {
    Command::new(NAME)
        .version(env!("CARGO_PKG_VERSION"))
        .about("Work on Determined against a remote Kubernetes cluster: one file in, a running cluster out")
        .after_help(EXAMPLES)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands([
            Command::new("up")
                .about("Compile, run stock devcluster, and clean up after it")
                .args(input_args())
                .after_help(UP)
                .arg(flag("dry-run", "Say what would happen; write and start nothing"))
                .arg(flag("no-preflight", "At a terminal: do not look at what the stages need, and ask nothing"))
                .arg(flag("i-know", "Expose a master without a password all the same"))
                .arg(
                    Arg::new("devcluster")
                        .last(true)
                        .num_args(0..)
                        .value_name("ARGS")
                        .value_parser(value_parser!(OsString))
                        .help("Arguments for devcluster, such as --target-stage db"),
                ),
            Command::new("compile")
                .about("Print the devcluster.yaml that stock devcluster will get; runs nothing, asks nobody")
                .args(input_args())
                .arg(flag("with-plugins", "Run `describe` of each plugin and check its `with` against what that says"))
                .arg(path_arg("out").short('o').help("Write it to this file instead, with mode 0600")),
            Command::new("doctor")
                .about("Look at everything that a run will need: here, on the ssh server, on the cluster")
                .after_help(DOCTOR)
                .args(input_args())
                .arg(format_arg()),
            Command::new("gc")
                .about("Undo what dead runs left, here, on ssh servers and on clusters")
                .after_help(GC)
                .args(place_args())
                .arg(flag("dry-run", "Say what would be undone; touch nothing")),
            Command::new("status")
                .about("Show where each stage stands: phase, outputs, health, last error")
                .after_help(STATUS)
                .args(place_args())
                .arg(flag("watch", "Go on, and show every change, until Ctrl-C").short('w'))
                .arg(flag("check", "Have every stage that is ready asked whether what it reported still holds"))
                .arg(format_arg()),
            Command::new("sandbox")
                .about("Try it all with no cluster and no server: a local sshd, stand-ins for the rest")
                .arg(flag("check", "Prove that a pod reaches the master, then quit")),
            conformance::command(),
            Command::new("host").about("Run a plugin, a program that knows only the wire of PROTOCOL.md, as a stage"),
            Command::new("sandbox-master").hide(true).arg(path_arg("config-file").required(true)),
            Command::new("sandbox-pod")
                .hide(true)
                .arg(path_arg("config-file").required(true))
                .arg(Arg::new("every").long("every").value_parser(value_parser!(u64))),
        ])
}

fn flag(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name)
        .long(name)
        .action(ArgAction::SetTrue)
        .help(help)
}

fn format_arg() -> Arg {
    Arg::new("format")
        .long("format")
        .value_name("FORMAT")
        .value_parser(["text", "json"])
        .default_value("text")
        .help("Lines for people, or one JSON document")
}

fn path_arg(name: &'static str) -> Arg {
    Arg::new(name)
        .long(name)
        .value_name("PATH")
        .value_parser(value_parser!(PathBuf))
}

/// Which devcluster is meant.
fn place_args() -> [Arg; 2] {
    let file = file_arg().help("Only the stages of this file [default: everything of yours]");
    let run_dir = path_arg("run-dir").help("Only what met in this run directory");
    [file.conflicts_with("run-dir"), run_dir]
}

fn file_arg() -> Arg {
    Arg::new("config")
        .short('c')
        .visible_alias("config-file")
        .long("config")
        .value_name("FILE")
        .value_parser(value_parser!(PathBuf))
}

fn input_args() -> Vec<Arg> {
    let file = file_arg()
        .help("A devcluster.yaml that lists the new stages, or a flat remote_connect.yaml");
    let flat = FLAT_FLAGS.iter().map(|(key, help)| {
        Arg::new(*key)
            .long(key.replace('_', "-"))
            .value_name("VALUE")
            .allow_hyphen_values(true)
            .help(*help)
            .help_heading("Keys of remote_connect.yaml; they win over the file")
    });
    std::iter::once(file).chain(flat).collect()
}
