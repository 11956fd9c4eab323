//! What can be called, and the help of it.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::TypedValueParser;
use clap::{Arg, ArgAction, Command, value_parser};
use clap_complete::Shell;

use crate::flat::FLAT_FLAGS;

pub(crate) const NAME: &str = "devcluster-remote";

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

const MIGRATE: &str = "\
The stages are put into the base_devcluster_path, the result is one file that needs no other. Nothing is changed in place.

Example:
  devcluster-remote migrate remote_connect.yaml --out devcluster.yaml
  devcluster-remote doctor -c devcluster.yaml";

const SCHEMA: &str = "\
For an editor with the YAML language server (VS Code, Neovim, Helix, IntelliJ): write it to a file, and put a line on top of \
your devcluster.yaml.

Example:
  devcluster-remote schema --out ~/.config/devcluster-remote.schema.json
  # yaml-language-server: $schema=~/.config/devcluster-remote.schema.json (with the full path)";

const COMPLETIONS: &str = "\
bash:  source <(devcluster-remote completions bash)          in ~/.bashrc
zsh:   devcluster-remote completions zsh --dir ~/.zfunc      a directory of $fpath, before compinit
fish:  devcluster-remote completions fish --dir ~/.config/fish/completions";

const MAN: &str = "\
Examples:
  devcluster-remote man | man -l -
  devcluster-remote man --dir ~/.local/share/man/man1; man devcluster-tunnel-run";

const GC: &str = "\
Whatever a stage makes outside of itself it first writes into a ledger in $XDG_STATE_HOME/devcluster-stages. Here the ledgers \
of dead runs are read, and each stage undoes its own: the end of an ssh session on the server, a Lease and a Gateway on the \
cluster, files here. What a stage that runs has made is left alone; stages that outlived a devcluster that was killed are \
ended first, as its next start would. --dry-run has each stage look what is left of it. The exit code is 1 when something \
could not be undone; it can be tried again.";

/// Verbs that are programs of their own, which get all that follows the verb.
const APART: [(&str, &str, &str); 2] = [
    (
        "sandbox",
        "devcluster-sandbox",
        "Try it all with no cluster and no server: a local sshd, stand-ins for the rest",
    ),
    (
        "conformance",
        "devcluster-conformance",
        "Check a stage in any language against PROTOCOL.md, from outside",
    ),
];

/// The program behind such a verb.
pub(crate) fn apart(verb: &str) -> Option<&'static str> {
    let found = APART.iter().find(|(name, _, _)| *name == verb);
    found.map(|(_, program, _)| *program)
}

pub(crate) fn command() -> Command {
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
                .arg(out_arg().help("Write it to this file instead, with mode 0600")),
            Command::new("doctor")
                .about("Look at everything that a run will need: here, on the ssh server, on the cluster")
                .after_help(DOCTOR)
                .args(input_args())
                .arg(format_arg()),
            Command::new("gc")
                .about("Undo what dead runs left, here, on ssh servers and on clusters")
                .after_help(GC)
                .args(place_args())
                .arg(flag("dry-run", "Look what is left, here, on the server and on the cluster, and say what would be undone; undo nothing")),
            Command::new("status")
                .about("Show where each stage stands: phase, outputs, health, last error")
                .after_help(STATUS)
                .args(place_args())
                .arg(flag("watch", "Go on, and show every change, until Ctrl-C").short('w'))
                .arg(flag("check", "Have every stage that is ready asked whether what it reported still holds"))
                .arg(format_arg()),
            Command::new("migrate")
                .about("Write the new form of a remote_connect.yaml, with comments that explain it")
                .after_help(MIGRATE)
                .arg(
                    Arg::new("file")
                        .value_name("FILE")
                        .value_parser(value_parser!(PathBuf))
                        .conflicts_with("config")
                        .help("The remote_connect.yaml"),
                )
                .args(input_args())
                .arg(out_arg()),
            Command::new("schema")
                .about("Print one JSON Schema for the whole file, so that an editor completes and checks it")
                .after_help(SCHEMA)
                .arg(out_arg()),
            Command::new("completions")
                .about("Print completions for a shell, of this program and of the stages")
                .after_help(COMPLETIONS)
                .arg(
                    Arg::new("shell")
                        .required(true)
                        .value_name("SHELL")
                        .value_parser(clap::builder::PossibleValuesParser::new(["bash", "zsh", "fish"]).map(|s| match s.as_str() {
                            "zsh" => Shell::Zsh,
                            "fish" => Shell::Fish,
                            _ => Shell::Bash,
                        }))
                        .help("The shell"),
                )
                .arg(path_arg("dir").help("Write a file for each program into this directory")),
            Command::new("man")
                .about("Print the man page, or write those of every program and verb")
                .after_help(MAN)
                .arg(path_arg("dir").help("Write a page for each program and verb into this directory")),
            Command::new("host").about("Run a plugin, a program that knows only the wire of PROTOCOL.md, as a stage"),
        ])
        .subcommands(APART.map(|(name, program, about)| {
            let help = format!("What {program} takes; `devcluster-remote {name} --help` shows it");
            let args = Arg::new("args").num_args(0..).value_name("ARGS").help(help);
            Command::new(name).about(about).arg(args)
        }))
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

fn out_arg() -> Arg {
    path_arg("out")
        .short('o')
        .help("Write it to this file instead")
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
