//! The command line of the sandbox, and of the stand-ins that it runs as stages.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use protocol::codes::PROGRAM_FAILED;
use protocol::program::{self, say};
use protocol::{Env, Exit, StageError};

use crate::{master, pod, show};

const NAME: &str = "devcluster-sandbox";

/// How long a single call of a pod waits for its master.
const PATIENCE: Duration = Duration::from_secs(10);

/// Try everything without a cluster and a server: a local sshd, stand-ins for the rest
#[derive(Parser)]
#[command(name = NAME, version)]
struct Cli {
    /// Prove that a pod can reach the master, then quit
    #[arg(long)]
    check: bool,
    #[command(subcommand)]
    stand_in: Option<StandIn>,
}

#[derive(Subcommand)]
enum StandIn {
    /// Stands in for `determined-master`
    #[command(hide = true)]
    Master {
        #[arg(long)]
        config_file: PathBuf,
    },
    /// Stands in for a pod: calls the master once, or at an interval in seconds
    #[command(hide = true)]
    Pod {
        #[arg(long)]
        config_file: PathBuf,
        #[arg(long)]
        every: Option<u64>,
    },
}

/// The whole of `main`.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    program::run(NAME, async {
        let played = match cli.stand_in {
            None => return show::run(cli.check, &Env::from_process()).await,
            Some(StandIn::Master { config_file }) => master::run(&config_file).await,
            Some(StandIn::Pod { config_file, every }) => match every {
                Some(seconds) => pod::run(&config_file, Duration::from_secs(seconds)).await,
                None => call_once(&config_file).await,
            },
        };
        played.map_err(|e| StageError::new(PROGRAM_FAILED, e.to_string()))?;
        Ok(Exit::Ok as u8)
    })
}

async fn call_once(config_file: &Path) -> anyhow::Result<()> {
    let master = pod::Master::from_config(&master::read(config_file)?)?;
    let took = pod::call(&master, PATIENCE).await?;
    say(&pod::reached(&master, took));
    Ok(())
}
