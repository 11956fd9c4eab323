//! Time that no change of the date affects: seconds since the machine's boot, suspension included.

use std::collections::BTreeMap;

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// A point in time within one boot of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Unique to the boot.
    pub boot: String,
    /// Seconds since the boot.
    pub seconds: u64,
}

impl Moment {
    /// Now; `None` where the system has no id of its boot.
    pub fn now() -> Option<Moment> {
        let now = clock_gettime(CLOCK);
        Some(Moment {
            boot: boot_id()?,
            seconds: u64::try_from(now.tv_sec).ok()?,
        })
    }
}

#[cfg(target_os = "linux")]
const CLOCK: ClockId = ClockId::Boottime;

/// On macOS it runs while the machine sleeps.
#[cfg(not(target_os = "linux"))]
const CLOCK: ClockId = ClockId::Monotonic;

#[cfg(target_os = "linux")]
fn boot_id() -> Option<String> {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(id.trim().to_owned()).filter(|id| !id.is_empty())
}

#[cfg(not(target_os = "linux"))]
fn boot_id() -> Option<String> {
    let mut sysctl = std::process::Command::new("/usr/sbin/sysctl");
    let output = sysctl.args(["-n", "kern.bootsessionuuid"]).output().ok()?;
    let id = String::from_utf8(output.stdout).ok()?;
    Some(id.trim().to_owned()).filter(|id| !id.is_empty())
}

/// How long a thing is known to exist unchanged: the time between the first and the last sighting within each boot, added
/// up. The time between two boots is unknown and does not count.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Age(BTreeMap<String, Span>);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Span {
    first: u64,
    last: u64,
}

impl Age {
    /// Records a sighting.
    pub fn see(&mut self, now: &Moment) {
        let new = Span {
            first: now.seconds,
            last: now.seconds,
        };
        let span = self.0.entry(now.boot.clone()).or_insert(new.clone());
        match now.seconds >= span.last {
            true => span.last = now.seconds,
            // Containers can have clocks of their own.
            false => *span = new,
        }
    }

    /// Its seconds up to the last sighting.
    pub fn seconds(&self) -> u64 {
        let spans = self.0.values();
        spans.map(|span| span.last.saturating_sub(span.first)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_adds_up_what_was_seen_within_each_boot() {
        let mut age = Age::default();
        let mut see = |boot: &str, seconds| {
            age.see(&Moment {
                boot: boot.to_owned(),
                seconds,
            });
            age.seconds()
        };
        assert_eq!(see("a", 1000), 0);
        assert_eq!(see("a", 6000), 5000);
        assert_eq!(see("b", 9_000_000), 5000, "another boot starts at zero");
        assert_eq!(see("b", 9_005_000), 10_000);
        assert_eq!(see("c", 10), 10_000);
        assert_eq!(see("c", 5010), 15_000);
        assert_eq!(see("a", 6001), 15_001, "a boot can be seen again");
        assert_eq!(see("c", 9), 10_001, "a clock that went back counts nothing");
    }

    #[test]
    fn this_machine_has_a_boot() {
        let (first, second) = (Moment::now().unwrap(), Moment::now().unwrap());
        assert!(first.boot == second.boot && first.seconds <= second.seconds);
        assert!(first.boot.len() >= 32, "{first:?}");
    }
}
