//! `cleanup` of a plugin, for what a dead run left.

use std::path::Path;

use protocol::ledger::Entry;
use protocol::{Context, StageError, Undone};

use super::{Host, directory};
use crate::call::{Call, failed};
use crate::kinds::describe;

pub(super) async fn undo(cx: &Context<Host>, entry: &Entry) -> Result<Undone, StageError> {
    let Some(program) = entry.data["uses"].as_str() else {
        return Ok(Undone::Nothing);
    };
    if !Path::new(program).exists() {
        cx.warn(format!(
            "{program} is gone, and what it may have left with it"
        ));
        return Ok(Undone::Nothing);
    }
    tokio::select! {
        undone = cleanup(cx, Path::new(program)) => undone,
        () = cx.shutdown.cancelled() => Err(failed(Path::new(program), "cleanup", "interrupted")),
    }
}

/// What a plugin left only itself knows.
pub(super) async fn foresee(
    cx: &Context<Host>,
    entry: &Entry,
) -> Result<Option<String>, StageError> {
    let Some(program) = entry.data["uses"].as_str().map(Path::new) else {
        return Ok(None);
    };
    if !program.exists() || !describe(program, &cx.env).await?.has("cleanup") {
        return Ok(None);
    }
    let shown = program.display();
    Ok(Some(format!("what it left, by calling `{shown} cleanup`")))
}

async fn cleanup(cx: &Context<Host>, program: &Path) -> Result<Undone, StageError> {
    if !describe(program, &cx.env).await?.has("cleanup") {
        return Ok(Undone::Nothing);
    }
    let dir = directory(cx);
    let dir = dir.to_string_lossy();
    let args = ["cleanup", "--name", &cx.instance, "--run-dir", &dir];
    let people = cx.clone();
    let call = Call::new(program, &args);
    let called = call.run(move |line| people.info(line)).await?;
    match called.success {
        true => Ok(Undone::Removed(format!("{} cleaned up", program.display()))),
        false => Err(failed(program, "cleanup", &called.how)),
    }
}
