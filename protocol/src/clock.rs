//! Time that no change of the date affects: seconds since the machine's boot, suspension included.

use std::collections::BTreeMap;

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::identity::machine_id;

/// A point in time within one boot of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The machine: several can share a home.
    pub host: String,
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
            host: host(),
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

/// Machines of one image may have one id, and several machines one name, so both count.
fn host() -> String {
    let name = kernel("hostname", "kern.hostname");
    machine_id().unwrap_or_default() + &name.unwrap_or_default()
}

fn boot_id() -> Option<String> {
    kernel("random/boot_id", "kern.bootsessionuuid")
}

/// What the kernel says.
#[cfg(target_os = "linux")]
fn kernel(file: &str, _: &str) -> Option<String> {
    let text = std::fs::read_to_string(format!("/proc/sys/kernel/{file}")).ok()?;
    Some(text.trim().to_owned()).filter(|it| !it.is_empty())
}

#[cfg(not(target_os = "linux"))]
fn kernel(_: &str, name: &str) -> Option<String> {
    let mut sysctl = std::process::Command::new("/usr/sbin/sysctl");
    let output = sysctl.args(["-n", name]).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.trim().to_owned()).filter(|it| !it.is_empty())
}

/// How long a thing is known to exist unchanged: the time between the first and the last sighting within each boot, added
/// up. The time between two boots is unknown and does not count. What several machines saw may overlap, so the longest counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Age(BTreeMap<String, Span>);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Span {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    host: String,
    first: u64,
    last: u64,
}

impl Age {
    /// Records a sighting.
    pub fn see(&mut self, now: &Moment) {
        let new = Span {
            host: now.host.clone(),
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
        let mut hosts: BTreeMap<&str, u64> = BTreeMap::new();
        for span in self.0.values() {
            *hosts.entry(&span.host).or_default() += span.last.saturating_sub(span.first);
        }
        hosts.into_values().max().unwrap_or_default()
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
                host: String::new(),
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
    fn two_machines_that_share_a_home_count_their_time_once() {
        let mut age = Age::default();
        for (host, boot, seconds) in [
            ("a", "1", 0),
            ("b", "2", 50),
            ("a", "1", 5000),
            ("b", "2", 5000),
        ] {
            let (host, boot) = (host.to_owned(), boot.to_owned());
            age.see(&Moment {
                host,
                boot,
                seconds,
            });
        }
        assert_eq!(age.seconds(), 5000);
    }

    #[test]
    fn this_machine_has_a_boot() {
        let (first, second) = (Moment::now().unwrap(), Moment::now().unwrap());
        assert!(first.boot == second.boot && first.seconds <= second.seconds);
        assert!(first.boot.len() >= 32, "{first:?}");
    }
}
