//! `once`: do the work, print the outputs, leave no process.

use serde_json::Value;
use tokio::io::BufReader;
use tokio::task::JoinSet;

use crate::call::{Call, Stdin as StdinMode};
use crate::config;
use crate::context::Context;
use crate::env::Env;
use crate::error::{Exit, StageError};
use crate::io::Io;
use crate::rundir::Phase;
use crate::runtime::Session;
use crate::stage::Stage;
use crate::verbs::cleanup::undo_all;
use crate::verbs::run::{hello, join_chain};
use crate::verbs::stdin::Stdin;

pub(crate) async fn once<S: Stage>(call: Call, env: Env, io: Io) -> u8 {
    let config = config::load(S::KIND, &S::program(), &call.sources, &env, S::validate);
    let document = matches!(&config, Ok(c) if S::takes_stdout(c));
    let show = io.stdout_is_terminal && !document && call.events.is_none();
    let session = Session::working::<S>(
        call,
        env,
        io.stdout_is_terminal,
        document,
        io.stdout,
        io.stderr,
    );
    let mut tasks = JoinSet::new();
    let outcome = match session.shutdown.listen(&mut tasks, io.output_pipes) {
        Ok(_watch) => work::<S>(&session, &mut tasks, BufReader::new(io.stdin), config).await,
        Err(e) => Err(StageError::io("cannot listen to signals", &e)),
    };
    tasks.abort_all();
    if let (Ok(outputs), true) = (&outcome, show) {
        let text = serde_json::to_string_pretty(&outputs).unwrap_or_default();
        session.hub.stdout.write(format!("{text}\n").into_bytes());
    }
    session.finish(outcome.map(|_| Exit::Ok as u8)).await
}

async fn work<S: Stage>(
    session: &Session,
    tasks: &mut JoinSet<()>,
    stdin: Stdin,
    config: Result<S::Config, StageError>,
) -> Result<Value, StageError> {
    let upstream = match session.call.stdin {
        StdinMode::Chain => Some(join_chain::<S>(session, tasks, stdin).await?),
        _ => {
            hello::<S>(session);
            None
        }
    };
    let config = config?;
    let (run_dir, _lock, ledger) = session.claim::<S>().await?;
    let previous = run_dir.set_outputs_aside(&session.call.instance)?;
    session.hub.attach(run_dir.clone(), previous);
    session.hub.enter(Phase::Preparing);
    let cx: Context<S> = session.context(run_dir, ledger, upstream);
    let once = async {
        drop(undo_all(&cx).await);
        S::once(&cx, config).await
    };
    let outputs = tokio::select! {
        outputs = once => outputs,
        () = session.shutdown.requested() => {
            Err(StageError::new("protocol.interrupted", "stopped before the work was done"))
        }
    };
    let outputs = session.lingering(outputs).await;
    let outcome = match outputs {
        Ok(outputs) => cx.found(&outputs).await,
        Err(error) => Err(error),
    };
    cx.ledger.close();
    match &outcome {
        Ok(_) => session.hub.enter(Phase::Stopped),
        Err(error) => session.hub.failed(error),
    }
    outcome
}
