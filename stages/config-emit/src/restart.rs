//! `devcluster-config-emit restart`: the process that talks to devcluster's control socket, and its caller.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use clap::Parser;
use protocol::devcluster::{ControlError, RestartOutcome, restart};
use protocol::{StageError, program};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::signal::unix::{SignalKind, signal};

use crate::codes;

/// Time limit for the other process's answer. It is not ended then: it may hold a connection.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(12);

const NAME: &str = "devcluster-config-emit restart";

/// Restarts stages of a running devcluster by its control socket: only those that run and are not above its target, and
/// in the one way that does not crash devcluster. Prints the outcome of each stage as JSON: restarted, down, starting,
/// above_target or unknown.
#[derive(Parser)]
#[command(name = NAME, bin_name = NAME)]
struct Cli {
    /// The socket: <temp_dir>/sock
    #[arg(long, value_name = "PATH")]
    control_socket: PathBuf,
    #[arg(required = true, value_name = "STAGE")]
    stages: Vec<String>,
}

/// The `restart` verb.
pub(crate) fn main(args: Vec<OsString>) -> ExitCode {
    let cli = Cli::parse_from(args);
    program::run(NAME, async {
        let asked = run_to_completion(&cli.control_socket, &cli.stages).await;
        asked
            .map(|()| 0)
            .map_err(|error| StageError::new(codes::CONTROL, error.to_string()))
    })
}

/// Ignores signals: a client that ends before devcluster closes the connection would crash devcluster.
async fn run_to_completion(socket: &Path, stages: &[String]) -> Result<(), ControlError> {
    let kinds = [
        SignalKind::terminate(),
        SignalKind::interrupt(),
        SignalKind::hangup(),
    ];
    let _held: Vec<_> = kinds.into_iter().filter_map(|k| signal(k).ok()).collect();
    restart(socket, stages, |outcomes| {
        let line = serde_json::to_string(outcomes).unwrap_or_default() + "\n";
        drop(std::io::stdout().write_all(line.as_bytes()));
    })
    .await
}

/// Asks for restarts in a separate process, and returns the outcomes. The process has its own group and no parent-death
/// signal, so that it completes the conversation even if we die.
pub(crate) async fn request(
    socket: &Path,
    stages: &[String],
) -> Result<BTreeMap<String, RestartOutcome>, StageError> {
    let failed = |why: &str| StageError::new(codes::CONTROL, why.to_owned());
    let program = std::env::current_exe()
        .map_err(|e| StageError::io("cannot find the path of this program", &e))?;
    let mut child = tokio::process::Command::new(program)
        .arg("restart")
        .arg("--control-socket")
        .arg(socket)
        .args(stages)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(|e| StageError::io("cannot start the process that talks to devcluster", &e))?;
    let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(failed("the process that talks to devcluster has no output"));
    };
    let mut line = String::new();
    let mut lines = BufReader::new(stdout);
    let read = tokio::time::timeout(ANSWER_TIMEOUT, lines.read_line(&mut line)).await;
    if read.is_err() {
        return Err(failed("devcluster does not answer on its control socket"));
    }
    if let Ok(outcomes) = serde_json::from_str(&line) {
        return Ok(outcomes);
    }
    let mut why = String::new();
    drop(tokio::time::timeout(ANSWER_TIMEOUT, BufReader::new(stderr).read_line(&mut why)).await);
    let why = why
        .trim()
        .trim_start_matches(NAME)
        .trim_start_matches(": error: ");
    Err(failed(why))
}
