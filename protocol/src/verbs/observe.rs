//! `wait` and `check`: verbs that observe an instance from another process.

use std::time::Duration;

use serde_json::Value;

use crate::codes;
use crate::context::Context;
use crate::error::{Exit, StageError};
use crate::ledger::Ledger;
use crate::rundir::{Phase, RunDir};
use crate::runtime::{Invocation, load_config};
use crate::stage::Stage;
use crate::upstream::ReadinessWait;
use crate::verbs::diagnose::ledger_to_read;

pub(crate) async fn wait<S: Stage>(invocation: &Invocation) -> Result<(), StageError> {
    if invocation.call.guard {
        examine::<S>(invocation).await;
        return Ok(());
    }
    invocation
        .linger_after_failure(wait_for_instance(invocation).await)
        .await
}

/// Without a result: the state of what an instance guards is not a failure of the caller.
async fn examine<S: Stage>(invocation: &Invocation) {
    let Ok(run_dir) = RunDir::open(&invocation.call.run_dir) else {
        return;
    };
    let cx: Context<S> = invocation.context(run_dir, Ledger::detached(), None);
    let limit = invocation.call.timeout.unwrap_or(Duration::MAX);
    drop(tokio::time::timeout(limit, S::examine(&cx)).await);
}

async fn wait_for_instance(invocation: &Invocation) -> Result<(), StageError> {
    let run_dir = RunDir::open(&invocation.call.run_dir)?;
    let instance = &invocation.call.instance;
    let gate = ReadinessWait::new(&run_dir, instance);
    let ready = gate.wait(|step| {
        if !step.is_empty() {
            invocation.reporter.say(&format!("waiting: {step}"));
        }
    });
    match invocation.call.timeout {
        None => ready.await.map(drop),
        Some(limit) => tokio::time::timeout(limit, ready)
            .await
            .unwrap_or_else(|_| {
                let step = run_dir.status(instance).and_then(|s| s.message);
                let error = StageError::new(
                    codes::WAIT_TIMEOUT,
                    format!("{instance} was not ready after {} s", limit.as_secs_f64()),
                );
                Err(match step {
                    Some(step) => error.cause(format!("its last step: {step}")),
                    None => error,
                })
            })
            .map(drop),
    }
}

pub(crate) async fn check<S: Stage>(invocation: &Invocation) -> Result<(), StageError> {
    let sources = &invocation.call.sources;
    let is_given = sources.file.is_some() || !sources.flags.is_empty();
    let config = is_given.then(|| load_config::<S>(sources, &invocation.env));
    let config = config.transpose()?;
    let run_dir = RunDir::open(&invocation.call.run_dir)?;
    let instance = &invocation.call.instance;
    let failed = |message: String| StageError::new(codes::NOT_READY, message);
    let Some(file) = run_dir.live_outputs(instance) else {
        let path = run_dir.path().display();
        return Err(match run_dir.holder(instance) {
            Some(_) => failed(format!("{instance} runs in {path} and is not ready"))
                .hint(format!("wait for it: {} wait …", S::program())),
            None => failed(format!("no process runs {instance} in {path}")).hint(format!(
                "start it: {} run …; for a stage of `devcluster-remote up` add `--run-dir <temp_dir>/stages`",
                S::program()
            )),
        });
    };
    let outputs: S::Outputs = serde_json::from_value(Value::Object(file.reported.outputs))
        .map_err(|e| {
            failed(format!(
                "the outputs of {instance} are not those of a {}",
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
    let ledger = ledger_to_read(invocation)?;
    let cx: Context<S> = invocation.context(run_dir.clone(), ledger, None);
    S::check(&cx, config, outputs)
        .await
        .map_err(|e| e.exit(Exit::CheckFailed))?;
    invocation.reporter.say(&format!("valid: {summary}"));
    Ok(())
}
