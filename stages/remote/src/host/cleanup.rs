//! `cleanup` of a plugin after a dead run.

use std::path::Path;

use protocol::ledger::Entry;
use protocol::{Context, Leftover, StageError};

use super::{Host, directory};
use crate::call::{Call, failed};
use crate::verbs::describe;

/// What a plugin left. Only the plugin itself knows the details.
pub(super) async fn leftover<'a>(
    cx: &'a Context<Host>,
    entry: &'a Entry,
) -> Result<Option<Leftover<'a>>, StageError> {
    let Some(program) = entry.data["uses"].as_str().map(Path::new) else {
        return Ok(None);
    };
    let shown = program.display();
    if !program.exists() {
        cx.warn(format!(
            "{shown} does not exist any more, so what it left cannot be removed"
        ));
        return Ok(None);
    }
    if !describe(program, &cx.env).await?.has("cleanup") {
        return Ok(None);
    }
    let title = format!("what {shown} left, with its `cleanup`");
    let cleanup = async move {
        tokio::select! {
            done = cleanup(cx, program) => done.map(|()| true),
            () = cx.shutdown.cancelled() => Err(failed(program, "cleanup", "interrupted")),
        }
    };
    Ok(Some(Leftover::new(title, cleanup)))
}

async fn cleanup(cx: &Context<Host>, program: &Path) -> Result<(), StageError> {
    let dir = directory(cx);
    let dir = dir.to_string_lossy();
    let args = ["cleanup", "--name", &cx.instance, "--run-dir", &dir];
    let call = Call::new(program, &args);
    let called = call.run(|line| cx.info(line)).await?;
    match called.success {
        true => Ok(()),
        false => Err(failed(program, "cleanup", &called.how)),
    }
}
