//! The own time of the program under test.

use std::pin::pin;
use std::time::{Duration, Instant};

use tokio::time::timeout;

use super::machine;

/// How often the state of the processes is read.
const INTERVAL: Duration = Duration::from_millis(20);

/// A wait ends after this many times its limit by the wall clock, for a program that gets no processor time at all.
const GIVE_UP: u32 = 30;

/// Counts the own time of processes. While one of them waits for a processor or a disk, only processor time counts. So a
/// limit is the same on an idle machine and on a busy one.
struct OwnTime {
    own: Duration,
    looked: Instant,
    computed: Duration,
    /// Processor time that is not counted yet: the kernel reports it in ticks.
    due: Duration,
}

impl OwnTime {
    /// Starts to count.
    fn new(pids: &[i32]) -> OwnTime {
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
        // This process was delayed, and does not know what the others did meanwhile.
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

/// Waits for something that these processes do, up to a limit of their own time. Returns the time that passed, and the
/// result, if any.
pub async fn within<T>(
    limit: Duration,
    pids: impl Fn() -> Vec<i32>,
    event: impl Future<Output = T>,
) -> (Duration, Option<T>) {
    let mut own = OwnTime::new(&pids());
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
