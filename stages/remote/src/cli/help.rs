//! The ends of the help texts.

pub(super) const EXAMPLES: &str = "Examples:
  devcluster-remote sandbox                      try it all, with no cluster and no server
  devcluster-remote up -c devcluster.yaml        a file that lists tunnel, gateway and config-emit stages
  devcluster-remote up -c remote_connect.yaml    the flat file of the Python tool
  devcluster-remote compile -c devcluster.yaml   see what stock devcluster will get";

pub(super) const UP: &str = "\
At a terminal the stages first look at what they need, as `doctor` shows it, and ask what is for you to decide; then \
devcluster has the terminal: a digit says how far it is up, `q` quits. Without a terminal devcluster runs with --oneshot, \
and the exit code is 1 when a stage fails. SIGTERM ends it in good order; what could not be given back is undone or named.

Examples:
  devcluster-remote up -c devcluster.yaml --dry-run
  devcluster-remote up -c devcluster.yaml -- --target-stage db
  devcluster-remote up --reverse-proxy-host proxy.example.com --remote-port-range 8000,9000";

pub(super) const DOCTOR: &str = "\
Every stage of the file looks at what it needs, all of them side by side, in seconds; nothing is changed and nothing is \
left. Each line is ✓ there, ✗ missing, with the hint, or – not looked at, with the reason. The exit code is 5 when \
something is missing. It may be run while the cluster is up.

Examples:
  devcluster-remote doctor                        this machine alone
  devcluster-remote doctor -c devcluster.yaml     also what its stages need
  devcluster-remote doctor -c devcluster.yaml --format json | jq '.checks[] | select(.status == \"failed\")'";

pub(super) const STATUS: &str = "\
A stage is starting, preparing, ready, degraded (what it reported does not hold for the moment, and it works on it), \
stopping, stopped, failed, or killed (it died without a word; `devcluster-remote gc` undoes what it left). The exit code is \
5 when one is degraded, failed or killed.

Examples:
  devcluster-remote status --watch
  devcluster-remote status -c devcluster.yaml --check
  devcluster-remote status --format json | jq '.run_dirs[].instances[] | {stage, phase}'";

pub(super) const MIGRATE: &str = "\
The stages are put into the base_devcluster_path, the result is one file that needs no other. Nothing is changed in place.

Example:
  devcluster-remote migrate remote_connect.yaml --out devcluster.yaml
  devcluster-remote doctor -c devcluster.yaml";

pub(super) const SCHEMA: &str = "\
For an editor with the YAML language server (VS Code, Neovim, Helix, IntelliJ): write it to a file, and put a line on top of \
your devcluster.yaml.

Example:
  devcluster-remote schema --out ~/.config/devcluster-remote.schema.json
  # yaml-language-server: $schema=~/.config/devcluster-remote.schema.json (with the full path)";

pub(super) const EXPLAIN: &str = "\
Every error ends with its code. That of a stage is explained by the program of its kind, which has the verb `explain` too.

Examples:
  devcluster-remote explain tunnel.server_busy
  devcluster-remote explain --format json | jq '.[] | select(.retryable) | .code'";

pub(super) const COMPLETIONS: &str = "\
bash:  source <(devcluster-remote completions bash)          in ~/.bashrc
zsh:   devcluster-remote completions zsh --dir ~/.zfunc      a directory of $fpath, before compinit
fish:  devcluster-remote completions fish --dir ~/.config/fish/completions";

pub(super) const MAN: &str = "\
Examples:
  devcluster-remote man | man -l -
  devcluster-remote man --dir ~/.local/share/man/man1; man devcluster-tunnel-run";

pub(super) const GC: &str = "\
Whatever a stage makes outside of itself it first writes into a ledger in $XDG_STATE_HOME/devcluster-stages. Here the ledgers \
of dead runs are read, and each stage undoes its own: the end of an ssh session on the server, a Lease and a Gateway on the \
cluster, files here. What a stage that runs has made is left alone; stages that outlived a devcluster that was killed are \
ended first, as its next start would. --dry-run has each stage look what is left of it. The exit code is 1 when something \
could not be undone; it can be tried again.";
