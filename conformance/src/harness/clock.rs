//! Time as the program under test has it.

use std::pin::pin;
use std::time::{Duration, Instant};

use tokio::time::timeout;

use super::machine;

/// How often is looked whether processes wait for a processor.
const INTERVAL: Duration = Duration::from_millis(20);

/// A program that gets no processor at all: how many times a limit is waited for, by the clock on the wall.
const GIVE_UP: u32 = 30;

/// Counts the time that processes have for themselves. While one of them waits for a processor or a disk the machine is busy
/// with other work, and only what they compute counts. So a limit means the same on an idle machine and on a loaded one.
struct OwnTime {
    own: Duration,
    looked: Instant,
    computed: Duration,
    /// Computed while they waited, and not counted yet: the kernel tells of it in ticks.
    due: Duration,
}

impl OwnTime {
    /// Begins to count.
    fn of(pids: &[i32]) -> OwnTime {
        OwnTime {
            own: Duration::ZERO,
            looked: Instant::now(),
            computed: machine::work(pids).computed,
            due: Duration::ZERO,
        }
    }

    /// Counts up to now.
    fn count(&mut self, pids: &[i32]) -> Duration {
        let work = machine::work(pids);
        let now = Instant::now();
        let passed = now - self.looked;
        self.due += work.computed.saturating_sub(self.computed);
        // Who looks this late was held up, and does not know what they did meanwhile.
        let counted = if work.waits {
            self.due.min(passed)
        } else {
            passed.min(self.due.max(2 * INTERVAL))
        };
        self.due = self.due.saturating_sub(counted);
        self.own += counted;
        self.looked = now;
        self.computed = work.computed;
        self.own
    }
}

/// Waits for something that these processes do, for so much of their own time. Says how much of it passed, and what came of
/// it, if it came.
pub async fn within<T>(
    limit: Duration,
    pids: impl Fn() -> Vec<i32>,
    event: impl Future<Output = T>,
) -> (Duration, Option<T>) {
    let mut own = OwnTime::of(&pids());
    let mut event = pin!(event);
    let began = Instant::now();
    loop {
        let came = timeout(INTERVAL.min(limit), &mut event).await.ok();
        let passed = own.count(&pids());
        if came.is_some() || passed >= limit || began.elapsed() >= limit * GIVE_UP {
            return (passed, came);
        }
    }
}
