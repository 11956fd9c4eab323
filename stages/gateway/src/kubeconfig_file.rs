//! The minified kubeconfig file: recorded in the ledger, then written, and removed when the stage ends.

use std::path::{Path, PathBuf};

use cluster::KubeContext;
use protocol::ledger::Ticket;
use protocol::{Context, Leftover, StageError, files};
use serde_json::json;

use crate::Gateway;

/// The ledger's kind of entry for it.
pub(crate) const KIND: &str = "kubeconfig";

/// The file, until it is removed.
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
        files::remove(&self.path).map_err(|error| not_removed(&self.path, &error))?;
        self.ticket.settle()
    }
}

fn not_removed(path: &Path, error: &std::io::Error) -> StageError {
    StageError::io(format!("cannot remove {}", path.display()), error)
}

/// The file of a dead run.
pub(crate) fn leftover(data: &serde_json::Value) -> Option<Leftover<'_>> {
    let path = data["path"].as_str().map(Path::new)?;
    let there = path.symlink_metadata().is_ok();
    let remove = async move {
        files::remove(path).map_err(|error| not_removed(path, &error))?;
        Ok(true)
    };
    there.then(|| Leftover::new(format!("the kubeconfig {}", path.display()), remove))
}
