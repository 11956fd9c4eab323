//! `devcluster-config-emit restart`: the process that talks to devcluster's control socket, and its caller.

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use protocol::devcluster::{ControlError, Outcomes, restart, restart_crashed};
use protocol::{StageError, program};
use tokio::signal::unix::{SignalKind, signal};

use crate::codes;

const NAME: &str = "devcluster-config-emit restart";

/// Restarts stages of a running devcluster by its control socket: only those that run and are not above its target, and
/// in the one way that does not crash devcluster. Prints the outcome of each stage as JSON: restarted, down, starting,
/// above_target, crashed or unknown.
#[derive(Parser)]
#[command(name = NAME, bin_name = NAME)]
struct Cli {
    /// The socket: <temp_dir>/sock
    #[arg(long, value_name = "PATH")]
    control_socket: PathBuf,
    /// Start again those of the stages that have crashed; the outcome is of every crashed stage
    #[arg(long)]
    crashed: bool,
    #[arg(required_unless_present = "crashed", value_name = "STAGE")]
    stages: Vec<String>,
}

/// The `restart` verb.
pub(crate) fn main(args: Vec<OsString>) -> ExitCode {
    let cli = Cli::parse_from(args);
    program::run(NAME, async {
        let asked = run_to_completion(&cli).await;
        asked
            .map(|()| 0)
            .map_err(|error| StageError::new(codes::CONTROL, error.to_string()))
    })
}

/// Ignores signals: a client that ends before devcluster closes the connection would crash devcluster.
async fn run_to_completion(cli: &Cli) -> Result<(), ControlError> {
    let kinds = [
        SignalKind::terminate(),
        SignalKind::interrupt(),
        SignalKind::hangup(),
    ];
    let _held: Vec<_> = kinds.into_iter().filter_map(|k| signal(k).ok()).collect();
    let print = |outcomes: &Outcomes| {
        let line = serde_json::to_string(outcomes).unwrap_or_default() + "\n";
        drop(std::io::stdout().write_all(line.as_bytes()));
    };
    match cli.crashed {
        true => restart_crashed(&cli.control_socket, &cli.stages, print).await,
        false => restart(&cli.control_socket, &cli.stages, print).await,
    }
}

/// Asks for restarts of these stages in a separate process.
pub(crate) async fn request(socket: &Path, stages: &[String]) -> Result<Outcomes, StageError> {
    // This very program, also after another release was installed in its place.
    let own = Path::new("/proc/self/exe");
    let program = match own.exists() {
        true => Ok(own.to_owned()),
        false => std::env::current_exe(),
    };
    let program =
        program.map_err(|e| StageError::io("cannot find the path of this program", &e))?;
    let answer = protocol::devcluster::request(&program, socket, stages).await;
    answer.map_err(|why| StageError::new(codes::CONTROL, why))
}
