//! Waits for changes of files, so that a waiting stage continues at once.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;

/// A file that was open for writing was closed, for example the lock of a process that ended.
const CLOSED: EventKind = EventKind::Access(AccessKind::Close(AccessMode::Write));

/// How long to wait without an event: some file systems report none, and not all systems report a lock that the kernel
/// released.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// Changes in some directories since the last wait.
pub(crate) struct Changes {
    changed: Arc<Notify>,
    _watcher: Option<RecommendedWatcher>,
}

impl Changes {
    /// A directory that cannot be watched is looked at from time to time.
    pub(crate) fn watch(directories: &[PathBuf]) -> Changes {
        let changed = Arc::new(Notify::new());
        let seen = changed.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            // Reading does not change a file: whoever reads after each would never stop.
            let read_only = event.is_ok_and(|e| e.kind.is_access() && e.kind != CLOSED);
            if !read_only {
                seen.notify_one();
            }
        });
        let mut watcher = watcher.ok();
        for directory in directories {
            if let Some(watcher) = &mut watcher {
                drop(watcher.watch(directory, RecursiveMode::NonRecursive));
            }
        }
        Changes {
            changed,
            _watcher: watcher,
        }
    }

    /// Waits until there may be a change.
    pub(crate) async fn next(&self) {
        drop(tokio::time::timeout(POLL_INTERVAL, self.changed.notified()).await);
    }
}
