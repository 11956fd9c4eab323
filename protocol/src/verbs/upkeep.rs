//! `wait` and `check`: verbs that look at an instance from outside.

use serde_json::Value;

use crate::call::{Call, Events};
use crate::config;
use crate::context::Context;
use crate::env::Env;
use crate::error::{Exit, StageError};
use crate::io::Io;
use crate::ledger::Ledger;
use crate::rundir::Phase;
use crate::runtime::Session;
use crate::stage::Stage;
use crate::upstream::Gate;

pub(crate) async fn wait<S: Stage>(call: Call, env: Env, io: Io) -> u8 {
    // A gate between stages: whoever runs it looks at the exit code and at stderr.
    let session = Session::new::<S>(call, env, Events::None, io.stdout, io.stderr);
    let outcome = session.lingering(wait_for_instance(&session).await).await;
    session.finish(outcome.map(|()| Exit::Ok as u8)).await
}

async fn wait_for_instance(session: &Session) -> Result<(), StageError> {
    let run_dir = session.run_dir()?;
    let instance = &session.call.instance;
    let gate = Gate::new(&run_dir, instance);
    let ready = gate.wait(|step| {
        if !step.is_empty() {
            session.hub.say(&format!("waiting: {step}"));
        }
    });
    match session.call.timeout {
        None => ready.await.map(drop),
        Some(limit) => tokio::time::timeout(limit, ready)
            .await
            .unwrap_or_else(|_| {
                let step = run_dir.status(instance).and_then(|s| s.message);
                let error = StageError::new(
                    "protocol.wait_timeout",
                    format!("{instance} was not ready after {} s", limit.as_secs_f64()),
                )
                .hint("allow more with --timeout, or see what it wrote")
                .exit(Exit::Timeout);
                Err(match step {
                    Some(step) => error.cause(format!("it was at: {step}")),
                    None => error,
                })
            })
            .map(drop),
    }
}

pub(crate) async fn check<S: Stage>(call: Call, env: Env, io: Io) -> u8 {
    let events = if io.stdout_is_terminal {
        Events::None
    } else {
        Events::All
    };
    let session = Session::new::<S>(call, env, events, io.stdout, io.stderr);
    let outcome = check_outputs::<S>(&session).await;
    session.finish(outcome.map(|()| Exit::Ok as u8)).await
}

async fn check_outputs<S: Stage>(session: &Session) -> Result<(), StageError> {
    let sources = &session.call.sources;
    let given = sources.file.is_some() || !sources.flags.is_empty();
    let config = match given {
        true => Some(config::load(
            S::KIND,
            &S::program(),
            sources,
            &session.env,
            S::validate,
        )?),
        false => None,
    };
    let run_dir = session.run_dir()?;
    let instance = &session.call.instance;
    let failed =
        |message: String| StageError::new("protocol.not_ready", message).exit(Exit::CheckFailed);
    let Some(file) = run_dir.live_outputs(instance) else {
        let path = run_dir.path().display();
        return Err(match run_dir.holder(instance) {
            Some(_) => failed(format!("{instance} runs in {path} and is not ready"))
                .hint(format!("wait for it: {} wait …", S::program())),
            None => failed(format!("nobody runs {instance} in {path}")).hint(format!(
                "start it: {} run …; one that `devcluster-remote up` runs is found with `--run-dir <temp_dir>/stages`",
                S::program()
            )),
        });
    };
    let outputs: S::Outputs = serde_json::from_value(Value::Object(file.outputs)).map_err(|e| {
        failed(format!(
            "the outputs of {instance} are not ones of a {}",
            S::KIND
        ))
        .source(&e)
    })?;
    if let Some(error) = run_dir
        .status(instance)
        .filter(|s| s.phase == Phase::Degraded)
        .and_then(|s| s.error)
    {
        return Err(error.exit(Exit::CheckFailed));
    }
    let summary = S::summary(&outputs);
    let ledger = Ledger::detached();
    let cx: Context<S> = session.context(run_dir.clone(), ledger, None);
    S::check(&cx, config, outputs)
        .await
        .map_err(|e| e.exit(Exit::CheckFailed))?;
    session.hub.say(&format!("holds: {summary}"));
    Ok(())
}
