//! Texts at the end of the help.

pub(super) const EXAMPLES: &str = "Examples:
  devcluster-remote sandbox                      try everything without a cluster and a server
  devcluster-remote up -c devcluster.yaml        a file that lists tunnel, gateway and config-emit stages
  devcluster-remote up -c remote_connect.yaml    the flat file of the Python tool
  devcluster-remote compile -c devcluster.yaml   print what stock devcluster gets";

pub(super) const UP: &str = "\
At a terminal, the stages first check what they need, as `doctor` does, and ask you where you have to decide. Then \
devcluster uses the terminal: a digit sets the target stage, `q` quits. Without a terminal, devcluster runs with --oneshot, \
and the exit code is 1 when a stage fails. SIGTERM shuts it down; what the stages could not release is removed or listed.

Examples:
  devcluster-remote up -c devcluster.yaml --dry-run
  devcluster-remote up -c devcluster.yaml -- --target-stage db
  devcluster-remote up --reverse-proxy-host proxy.example.com --remote-port-range 8000,9000";

pub(super) const DOCTOR: &str = "\
Every stage of the file checks what it needs, concurrently, within seconds. Nothing is changed and nothing is left. Each \
line is ✓ there, ✗ missing, with a hint, or – not checked, with the reason. The exit code is 5 when something is missing. \
You can run it while the cluster is up.

Examples:
  devcluster-remote doctor                        this machine alone
  devcluster-remote doctor -c devcluster.yaml     also what its stages need
  devcluster-remote doctor -c devcluster.yaml --format json | jq '.checks[] | select(.status == \"failed\")'";

pub(super) const STATUS: &str = "\
A stage is starting, preparing, ready, degraded (its outputs are not valid at the moment, and it works on it), stopping, \
stopped, failed, or killed (it died without reporting an end; `devcluster-remote gc` removes what it left). The exit code \
is 5 when a stage is degraded, failed or killed.

Examples:
  devcluster-remote status --watch
  devcluster-remote status -c devcluster.yaml --check
  devcluster-remote status --format json | jq '.run_dirs[].instances[] | {stage, phase}'";

pub(super) const MIGRATE: &str = "\
The result is the file of base_devcluster_path with the stages added; it needs no other file. Existing files stay unchanged.

Example:
  devcluster-remote migrate remote_connect.yaml --out devcluster.yaml
  devcluster-remote doctor -c devcluster.yaml";

pub(super) const SCHEMA: &str = "\
For an editor with the YAML language server (VS Code, Neovim, Helix, IntelliJ): write the schema to a file, and put the line \
below at the top of your devcluster.yaml.

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
A stage records everything that it creates outside of its process in a ledger in $XDG_STATE_HOME/devcluster-stages. This \
command reads the ledgers of dead runs, and each stage removes what it left: an ssh session on the server, a Lease and a \
Gateway on the cluster, files on this machine. Running stages are not touched. Stages that outlived a killed devcluster are \
ended first, as its next start would end them. What running tasks depend on stays until the time that an earlier run printed; \
with --now it goes too. With --dry-run, each stage only lists what is left. The exit code is 1 when \
something cannot be removed; try again later.";
