//! When a Lease has expired: unchanged for its full duration, on our own clock. What was seen is kept in a file, so that
//! the time counts also while no stage runs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use k8s_openapi::api::coordination::v1::Lease;
use protocol::{Env, files, ledger};
use serde::{Deserialize, Serialize};

/// What is not seen again for this long is forgotten. Seconds.
const MEMORY: u64 = 7 * 24 * 3600;

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Sighting {
    version: String,
    /// Seconds since 1970, by our own clock.
    since: u64,
    last: u64,
}

/// Notes these Leases as they are now. Without a file that can be written none ever expires, which is the safe side.
pub fn note(leases: &[Lease], env: &Env) {
    if leases.is_empty() {
        return;
    }
    let path = path(env);
    let mut seen = read(&path);
    judge(leases, &mut seen, now());
    let text = serde_json::to_vec(&seen).unwrap_or_default();
    drop(files::replace(&path, &text, false));
}

/// Those that have expired by what was noted before.
pub fn expired<'a>(leases: &'a [Lease], env: &Env) -> Vec<&'a Lease> {
    judge(leases, &mut read(&path(env)), now())
}

fn path(env: &Env) -> PathBuf {
    ledger::directory(env).join("leases-seen.json")
}

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

fn read(path: &Path) -> BTreeMap<String, Sighting> {
    let bytes = files::read(path).ok().flatten().unwrap_or_default();
    serde_json::from_slice(&bytes).unwrap_or_default()
}

fn judge<'a>(
    leases: &'a [Lease],
    seen: &mut BTreeMap<String, Sighting>,
    now: u64,
) -> Vec<&'a Lease> {
    let mut expired = Vec::new();
    for lease in leases {
        let metadata = &lease.metadata;
        let (Some(uid), Some(version)) = (&metadata.uid, &metadata.resource_version) else {
            continue;
        };
        let duration = lease
            .spec
            .as_ref()
            .and_then(|spec| spec.lease_duration_seconds);
        let duration = duration.and_then(|seconds| u64::try_from(seconds).ok());
        let sighting = seen.entry(uid.clone()).or_insert_with(|| Sighting {
            version: version.clone(),
            since: now,
            last: now,
        });
        // A clock that was set back has to begin anew.
        if sighting.version != *version || sighting.since > now {
            sighting.version.clone_from(version);
            sighting.since = now;
        }
        sighting.last = now;
        if duration.is_some_and(|duration| now - sighting.since > duration) {
            expired.push(lease);
        }
    }
    seen.retain(|_, sighting| now.saturating_sub(sighting.last) < MEMORY);
    expired
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn lease(version: u32) -> Lease {
        serde_json::from_value(json!({
            "metadata": {"uid": "u", "resourceVersion": version.to_string()},
            // What its holder's clock said is no matter.
            "spec": {"leaseDurationSeconds": 60, "renewTime": "1999-01-01T00:00:00.000000Z"},
        }))
        .unwrap()
    }

    #[test]
    fn a_lease_expires_when_it_stays_unchanged_for_its_duration_on_our_own_clock() {
        let mut seen = BTreeMap::new();
        let mut expires = |version, now| !judge(&[lease(version)], &mut seen, now).is_empty();
        assert!(!expires(1, 1000));
        assert!(!expires(1, 1060));
        assert!(expires(1, 1061));
        assert!(!expires(2, 1062), "it was renewed");
        assert!(!expires(2, 500), "the clock was set back");
        assert!(!expires(2, 560));
        assert!(expires(2, 561));
    }
}
