//! `once`: do the work, print the outputs, leave no process.

use tokio::task::JoinSet;

use crate::call::{Events, Stdin as StdinMode};
use crate::error::StageError;
use crate::rundir::Phase;
use crate::runtime::Session;
use crate::stage::Stage;
use crate::verbs::cleanup::undo_all;
use crate::verbs::run::{hello, join_chain};
use crate::verbs::stdin::Stdin;

pub(crate) async fn once<S: Stage>(
    session: &Session,
    tasks: &mut JoinSet<()>,
    stdin: Stdin,
    config: Result<S::Config, StageError>,
) -> Result<(), StageError> {
    let upstream = match session.call.stdin {
        StdinMode::Chain => Some(join_chain::<S>(session, tasks, stdin).await?),
        _ => {
            hello::<S>(session);
            None
        }
    };
    let config = config?;
    let (cx, _lock) = session.begin::<S>(upstream).await?;
    session.hub.enter(Phase::Preparing);
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
    let outcome = match session.lingering(outputs).await {
        Ok(outputs) => cx.found(&outputs).await,
        Err(error) => Err(error),
    };
    cx.ledger.close();
    match &outcome {
        Ok(_) => session.hub.enter(Phase::Stopped),
        Err(error) => session.hub.failed(error),
    }
    let outputs = outcome?;
    // On a terminal nobody reads protocol lines.
    let is_for_people = session.call.events.is_none() && session.hub.events == Events::None;
    if is_for_people && !session.hub.has_document() {
        let text = serde_json::to_string_pretty(&outputs).unwrap_or_default();
        session.hub.stdout.write(format!("{text}\n").into_bytes());
    }
    Ok(())
}
