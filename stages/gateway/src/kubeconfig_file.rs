//! The minified kubeconfig on disk: written down in the ledger, then made; gone when the stage ends.

use std::path::{Path, PathBuf};

use cluster::KubeContext;
use protocol::ledger::Ticket;
use protocol::{Context, StageError, Undone, files};
use serde_json::json;

use crate::Gateway;

/// The word for it in the ledger.
pub(crate) const KIND: &str = "kubeconfig";

/// The file, for as long as somebody needs it.
pub(crate) struct KubeconfigFile {
    pub(crate) path: PathBuf,
    ticket: Ticket,
}

impl KubeconfigFile {
    pub(crate) fn write(cx: &Context<Gateway>, context: &KubeContext) -> Result<Self, StageError> {
        let path = cx.run_dir.file(&format!("{}.kubeconfig", cx.instance));
        let ticket = cx.ledger.intend(KIND, json!({"path": path}))?;
        files::replace(&path, context.document()?.as_bytes(), false)
            .map_err(|error| StageError::io(format!("cannot write {}", path.display()), &error))?;
        Ok(Self { path, ticket })
    }

    pub(crate) fn remove(self) -> Result<(), StageError> {
        remove(&self.path)?;
        self.ticket.settle()
    }
}

fn remove(path: &Path) -> Result<(), StageError> {
    files::remove(path)
        .map_err(|error| StageError::io(format!("cannot remove {}", path.display()), &error))
}

/// What [`undo`] would remove.
pub(crate) fn left(data: &serde_json::Value) -> Option<String> {
    let path = data["path"].as_str().map(Path::new)?;
    let there = path.symlink_metadata().is_ok();
    there.then(|| format!("the kubeconfig {}", path.display()))
}

/// Undoes what a dead run left.
pub(crate) fn undo(data: &serde_json::Value) -> Result<Undone, StageError> {
    let left = left(data);
    if let Some(path) = data["path"].as_str() {
        remove(Path::new(path))?;
    }
    Ok(left.map_or(Undone::Nothing, Undone::Removed))
}
