//! `check --preflight`, and the other looks that a stage has: everything is looked at, nothing is begun.

use crate::cli::PREFLIGHT;
use crate::context::Context;
use crate::error::{Exit, StageError};
use crate::ledger::Ledger;
use crate::preflight::Check;
use crate::rundir::RunDir;
use crate::runtime::{Session, config_of};
use crate::stage::Stage;
use crate::verbs::run::hello;

pub(crate) async fn look<S: Stage>(session: &Session) -> Result<Exit, StageError> {
    hello::<S>(session);
    let config = config_of::<S>(&session.call.sources, &session.env)?;
    let directory = spare_dir(session)?;
    let (run_dir, unsafe_dir) = run_dir(session, directory.path())?;
    let cx: Context<S> = session.context(run_dir, Ledger::detached(), None);
    if let Some(error) = unsafe_dir {
        cx.report(Check::failed(
            "run_dir",
            "the run directory is ours",
            &error,
        ));
    }
    let looking = async {
        match session.call.look {
            None | Some(PREFLIGHT) => S::preflight(&cx, config).await,
            Some(name) => S::look(&cx, config, name).await,
        }
    };
    tokio::select! {
        () = looking => {}
        () = session.shutdown.requested() => {
            let message = "stopped before everything was looked at";
            return Err(StageError::new("protocol.interrupted", message));
        }
    }
    Ok(match session.hub.reported() {
        (0, _) => {
            session.hub.say("there is nothing to look at before a run");
            Exit::Ok
        }
        (all, 0) => {
            session.hub.say(&format!("{all} checks, none failed"));
            Exit::Ok
        }
        (all, failed) => {
            session.hub.say(&format!("{failed} of {all} checks failed"));
            Exit::CheckFailed
        }
    })
}

/// Gone again when it is dropped.
pub(crate) fn spare_dir(session: &Session) -> Result<tempfile::TempDir, StageError> {
    tempfile::Builder::new()
        .prefix("dcs-look-")
        .tempdir_in(session.env.temp_dir())
        .map_err(|e| StageError::io("cannot make a temporary directory", &e))
}

/// The instance's own run directory where there is one: looking makes none. One that cannot be used gives way to the
/// spare one, so that the rest is looked at all the same.
pub(crate) fn run_dir(
    session: &Session,
    spare: &std::path::Path,
) -> Result<(RunDir, Option<StageError>), StageError> {
    let path = &session.call.run_dir;
    let spare = || RunDir::open(spare);
    if !path.exists() {
        return Ok((spare()?, None));
    }
    match RunDir::open(path) {
        Ok(run_dir) => Ok((run_dir, None)),
        Err(error) => Ok((spare()?, Some(error))),
    }
}
