//! `cleanup --dry-run`: what is left, looked at where it is.

use crate::context::Context;
use crate::error::StageError;
use crate::ledger::Ledger;
use crate::runtime::Session;
use crate::stage::Stage;
use crate::verbs::look::{run_dir, spare_dir};

/// Says what `cleanup` would undo. No lock is taken and no directory is made.
pub(crate) async fn foresee<S: Stage>(session: &Session) -> Result<(), StageError> {
    let asked = session.call.run_dir.clone();
    let asked = asked.unwrap_or_else(|| session.env.default_run_dir());
    let asked = std::path::absolute(&asked)
        .map_err(|e| StageError::io(format!("cannot resolve {}", asked.display()), &e))?;
    let ledger = Ledger::read(&session.env, &session.call.instance, &asked)?;
    let spare = spare_dir(session)?;
    let (run_dir, _) = run_dir(session, spare.path())?;
    let cx: Context<S> = session.context(run_dir, ledger, None);
    let (mut first_error, mut found) = (None, false);
    for entry in cx.ledger.entries().iter().rev() {
        match S::foresee(&cx, entry).await {
            Ok(Some(what)) => {
                cx.info(format!("would remove {what}"));
                found = true;
            }
            Ok(None) => cx.debug(format!("nothing is left of {}", entry.describe())),
            Err(error) => {
                cx.warn(format!(
                    "cannot tell what is left of {}: {error}",
                    entry.describe()
                ));
                first_error.get_or_insert(error);
            }
        }
    }
    if !found && first_error.is_none() {
        session.hub.say("nothing is left to undo");
    }
    first_error.map_or(Ok(()), Err)
}
