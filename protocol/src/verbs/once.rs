//! `once`: does the work, prints the outputs, leaves no process.

use tokio::task::JoinSet;

use crate::call::{Events, StdinMode};
use crate::codes;
use crate::error::StageError;
use crate::rundir::Phase;
use crate::runtime::Invocation;
use crate::stage::Stage;
use crate::verbs::cleanup::undo_earlier;
use crate::verbs::run::{hello, join_chain};
use crate::verbs::stdin::Stdin;

pub(crate) async fn once<S: Stage>(
    invocation: &Invocation,
    tasks: &mut JoinSet<()>,
    stdin: Stdin,
    config: Result<S::Config, StageError>,
) -> Result<(), StageError> {
    let upstream = match invocation.call.stdin {
        StdinMode::Chain => Some(join_chain::<S>(invocation, tasks, stdin).await?),
        _ => {
            hello::<S>(invocation);
            None
        }
    };
    let config = config?;
    let stopped = || StageError::new(codes::INTERRUPTED, "stopped before the work was done");
    let (cx, _lock) = tokio::select! {
        begun = invocation.begin::<S>(upstream) => begun?,
        () = invocation.shutdown.requested() => return Err(stopped()),
    };
    invocation.reporter.enter(Phase::Preparing);
    let once = async {
        drop(undo_earlier(&cx).await);
        S::once(&cx, config).await
    };
    let outputs = tokio::select! {
        outputs = once => outputs,
        () = invocation.shutdown.requested() => Err(stopped()),
    };
    let outcome = match invocation.linger_after_failure(outputs).await {
        Ok(outputs) => cx.publish(&outputs).await,
        Err(error) => Err(error),
    };
    cx.ledger.close();
    match &outcome {
        Ok(_) => invocation.reporter.enter(Phase::Stopped),
        Err(error) => invocation.reporter.failed(error),
    }
    let outputs = outcome?;
    // At a terminal, the outputs are printed for people in place of protocol lines.
    let is_for_people =
        invocation.call.events.is_none() && invocation.reporter.events == Events::None;
    if is_for_people && !invocation.reporter.has_document() {
        let text = serde_json::to_string_pretty(&outputs).unwrap_or_default();
        invocation
            .reporter
            .stdout
            .write(format!("{text}\n").into_bytes());
    }
    Ok(())
}
