//! Decides whether a Lease has expired: unchanged for its full duration by the observer's own clock. Observations are
//! kept in a file, so that time without a running stage counts.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use k8s_openapi::api::coordination::v1::Lease;
use protocol::{Env, files, ledger};
use serde::{Deserialize, Serialize};

/// Seconds after which an observation is dropped.
const RETENTION: u64 = 7 * 24 * 3600;

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Observation {
    version: String,
    /// Unix time by the observer's clock.
    since: u64,
    last: u64,
}

type Observations = BTreeMap<String, Observation>;

/// Expired Leases, and the others.
type Split = (Vec<Lease>, Vec<Lease>);

/// Splits Leases by expiry and records them. If the file cannot be written, no Lease ever expires: the safe side.
pub fn observe(leases: Vec<Lease>, env: &Env) -> Split {
    if leases.is_empty() {
        return Split::default();
    }
    let (split, seen) = split(leases, env);
    let text = serde_json::to_vec(&seen).unwrap_or_default();
    drop(files::replace(&path(env), &text, false));
    split
}

/// Splits Leases by expiry and records nothing.
pub fn preview(leases: Vec<Lease>, env: &Env) -> Split {
    split(leases, env).0
}

/// Whether one Lease has expired; records it.
pub fn has_expired(lease: &Lease, env: &Env) -> bool {
    !observe(vec![lease.clone()], env).0.is_empty()
}

fn path(env: &Env) -> PathBuf {
    ledger::directory(env).join("leases-seen.json")
}

fn split(leases: Vec<Lease>, env: &Env) -> (Split, Observations) {
    let bytes = files::read(&path(env)).ok().flatten().unwrap_or_default();
    let mut seen: Observations = serde_json::from_slice(&bytes).unwrap_or_default();
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.map_or(0, |since| since.as_secs());
    let expired = |lease: &Lease| is_expired(lease, &mut seen, now);
    let split = leases.into_iter().partition(expired);
    seen.retain(|_, observation| now.saturating_sub(observation.last) < RETENTION);
    (split, seen)
}

fn is_expired(lease: &Lease, seen: &mut Observations, now: u64) -> bool {
    let metadata = &lease.metadata;
    let (Some(uid), Some(version)) = (&metadata.uid, &metadata.resource_version) else {
        return false;
    };
    let new = || Observation {
        version: version.clone(),
        since: now,
        last: now,
    };
    let observation = seen.entry(uid.clone()).or_insert_with(new);
    // If the clock was set back, the duration starts again.
    if observation.version != *version || observation.since > now {
        *observation = new();
    }
    observation.last = now;
    let duration = lease.spec.as_ref().and_then(|it| it.lease_duration_seconds);
    let duration = duration.and_then(|seconds| u64::try_from(seconds).ok());
    duration.is_some_and(|duration| now - observation.since > duration)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn lease(version: u32) -> Lease {
        serde_json::from_value(json!({
            "metadata": {"uid": "u", "resourceVersion": version.to_string()},
            // The holder's clock does not matter.
            "spec": {"leaseDurationSeconds": 60, "renewTime": "1999-01-01T00:00:00.000000Z"},
        }))
        .unwrap()
    }

    #[test]
    fn a_lease_expires_when_it_is_unchanged_for_its_duration_by_our_own_clock() {
        let mut seen = BTreeMap::new();
        let mut expires = |version, now| is_expired(&lease(version), &mut seen, now);
        assert!(!expires(1, 1000));
        assert!(!expires(1, 1060));
        assert!(expires(1, 1061));
        assert!(!expires(2, 1062), "it was renewed");
        assert!(!expires(2, 500), "the clock was set back");
        assert!(!expires(2, 560));
        assert!(expires(2, 561));
    }
}
