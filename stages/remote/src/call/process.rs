//! The process group of a called program.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};
use tokio::process::Child;
use tokio::time::Instant;

/// The kernel does not report when children of another process end.
const PAUSE: Duration = Duration::from_millis(10);

/// The process group that a program leads. Dropping it kills the remaining processes.
pub(crate) struct Group(Option<Pid>);

impl Group {
    pub(crate) fn led_by(child: &Child) -> Group {
        Group(child.id().and_then(|id| Pid::from_raw(id as i32)))
    }

    fn signal(&self, signal: Signal) {
        // This fails when all have ended.
        if let Some(group) = self.0 {
            let _ = kill_process_group(group, signal);
        }
    }

    pub(crate) fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Ends the processes that the leader left.
    pub(crate) async fn end(&mut self, patience: Duration) {
        self.terminate();
        let deadline = Instant::now() + patience;
        while self.0.is_some_and(|g| test_kill_process_group(g).is_ok()) {
            if Instant::now() >= deadline {
                return;
            }
            tokio::time::sleep(PAUSE).await;
        }
        // The id may belong to another group from now on.
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}
