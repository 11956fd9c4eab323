//! `check --preflight` and the other diagnostics of a stage: they report and change nothing.

use crate::cli::PREFLIGHT;
use crate::codes;
use crate::context::Context;
use crate::error::{Exit, StageError};
use crate::ledger::Ledger;
use crate::preflight::Check;
use crate::rundir::RunDir;
use crate::runtime::{Invocation, load_config};
use crate::stage::Stage;
use crate::verbs::run::hello;

pub(crate) async fn diagnose<S: Stage>(invocation: &Invocation) -> Result<Exit, StageError> {
    hello::<S>(invocation);
    let config = load_config::<S>(&invocation.call.sources, &invocation.env)?;
    let directory = scratch_dir(invocation)?;
    let (run_dir, unsafe_dir) = run_dir(invocation, directory.path())?;
    // It reads what a run would find.
    let ledger = ledger_to_read(invocation)?;
    let cx: Context<S> = invocation.context(run_dir, ledger, None);
    if let Some(error) = unsafe_dir {
        cx.report(Check::failed(
            "run_dir",
            "only this user can use the run directory",
            &error,
        ));
    }
    let diagnosis = async {
        match invocation.call.diagnostic {
            None | Some(PREFLIGHT) => S::preflight(&cx, config).await,
            Some(name) => S::diagnose(&cx, config, name).await,
        }
    };
    tokio::select! {
        () = diagnosis => {}
        () = invocation.shutdown.requested() => {
            let message = "stopped before all checks were made";
            return Err(StageError::new(codes::INTERRUPTED, message));
        }
    }
    Ok(match invocation.reporter.reported() {
        (0, _) => {
            invocation
                .reporter
                .say("this stage has no checks before a run");
            Exit::Ok
        }
        (all, 0) => {
            invocation
                .reporter
                .say(&format!("{all} checks, none failed"));
            Exit::Ok
        }
        (all, failed) => {
            invocation
                .reporter
                .say(&format!("{failed} of {all} checks failed"));
            Exit::CheckFailed
        }
    })
}

/// What the ledger of the instance lists, whether its run directory exists or not.
pub(crate) fn ledger_to_read(invocation: &Invocation) -> Result<Ledger, StageError> {
    let asked = &invocation.call.run_dir;
    let canonical = asked.canonicalize();
    let asked = canonical
        .or_else(|_| std::path::absolute(asked))
        .map_err(|e| StageError::io(format!("cannot resolve {}", asked.display()), &e))?;
    Ledger::read(&invocation.env, &invocation.call.instance, &asked)
}

/// A temporary directory. Dropping it removes it.
pub(crate) fn scratch_dir(invocation: &Invocation) -> Result<tempfile::TempDir, StageError> {
    tempfile::Builder::new()
        .prefix("dcs-scratch-")
        .tempdir_in(invocation.env.temp_dir())
        .map_err(|e| StageError::io("cannot make a temporary directory", &e))
}

/// The instance's run directory if it exists, else the scratch directory: a diagnostic creates no run directory. When the
/// run directory cannot be used, its error is returned with the scratch directory, so that the other checks still run.
pub(crate) fn run_dir(
    invocation: &Invocation,
    spare: &std::path::Path,
) -> Result<(RunDir, Option<StageError>), StageError> {
    let path = &invocation.call.run_dir;
    let spare = || RunDir::open(spare);
    if !path.exists() {
        return Ok((spare()?, None));
    }
    match RunDir::open(path) {
        Ok(run_dir) => Ok((run_dir, None)),
        Err(error) => Ok((spare()?, Some(error))),
    }
}
