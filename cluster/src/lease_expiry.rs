//! Decides whether a Lease has expired: seen unchanged for its full duration by the observer's own clock, which counts the
//! time within each boot of this machine. Observations are kept in a file, so that time without a running stage counts.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use k8s_openapi::api::coordination::v1::Lease;
use protocol::clock::{Age, Moment};
use protocol::identity::FORMAT;
use protocol::{Env, files, ledger};
use serde::{Deserialize, Serialize};

/// Seconds after which an observation is dropped.
const RETENTION: u64 = 30 * 24 * 3600;

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Observation {
    version: String,
    age: Age,
    /// Unix time of the last one. It only says when to forget it.
    last: u64,
}

type Observations = BTreeMap<String, Observation>;

#[derive(Debug, Default, Serialize, Deserialize)]
struct Content {
    format: u64,
    leases: Observations,
}

/// Expired Leases, and the others.
type Split = (Vec<Lease>, Vec<Lease>);

/// Splits Leases by expiry and records them. If the file cannot be written, no Lease ever expires: the safe side.
pub fn observe(leases: Vec<Lease>, env: &Env) -> Split {
    if leases.is_empty() {
        return Split::default();
    }
    let (split, seen) = split(leases, env);
    if seen.format == FORMAT {
        let text = serde_json::to_vec(&seen).unwrap_or_default();
        drop(files::replace(&path(env), &text, false));
    }
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

/// The same; records nothing.
pub fn seems_expired(lease: &Lease, env: &Env) -> bool {
    !preview(vec![lease.clone()], env).0.is_empty()
}

fn path(env: &Env) -> PathBuf {
    ledger::directory(env).join("leases-seen.json")
}

fn split(leases: Vec<Lease>, env: &Env) -> (Split, Content) {
    let bytes = files::read(&path(env)).ok().flatten().unwrap_or_default();
    let mut seen: Content = serde_json::from_slice(&bytes).unwrap_or_default();
    // A file of a newer release stays as it is; what cannot be recorded does not expire.
    let now = Moment::now().filter(|_| seen.format <= FORMAT);
    let Some(now) = now else {
        return ((Vec::new(), leases), seen);
    };
    seen.format = FORMAT;
    let date = SystemTime::now().duration_since(UNIX_EPOCH);
    let date = date.map_or(0, |since| since.as_secs());
    let expired = |lease: &Lease| is_expired(lease, &mut seen.leases, &now, date);
    let split = leases.into_iter().partition(expired);
    let is_recent = |last| date.saturating_sub(last) < RETENTION;
    seen.leases.retain(|_, it| is_recent(it.last));
    (split, seen)
}

fn is_expired(lease: &Lease, seen: &mut Observations, now: &Moment, date: u64) -> bool {
    let metadata = &lease.metadata;
    let (Some(uid), Some(version)) = (&metadata.uid, &metadata.resource_version) else {
        return false;
    };
    let new = || Observation {
        version: version.clone(),
        age: Age::default(),
        last: date,
    };
    let observation = seen.entry(uid.clone()).or_insert_with(new);
    if observation.version != *version {
        *observation = new();
    }
    observation.last = date;
    observation.age.see(now);
    let duration = lease.spec.as_ref().and_then(|it| it.lease_duration_seconds);
    let duration = duration.and_then(|seconds| u64::try_from(seconds).ok());
    duration.is_some_and(|duration| observation.age.seconds() > duration)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn lease(version: u32, duration: u32) -> Lease {
        serde_json::from_value(json!({
            "metadata": {"uid": "u", "resourceVersion": version.to_string()},
            // The holder's clock does not matter.
            "spec": {"leaseDurationSeconds": duration, "renewTime": "1999-01-01T00:00:00.000000Z"},
        }))
        .unwrap()
    }

    fn at(boot: &str, seconds: u64) -> Moment {
        Moment {
            host: String::new(),
            boot: boot.to_owned(),
            seconds,
        }
    }

    #[test]
    fn a_lease_expires_when_it_is_unchanged_for_its_duration_by_our_own_clock() {
        let mut seen = BTreeMap::new();
        let mut expires =
            |version, seconds| is_expired(&lease(version, 60), &mut seen, &at("a", seconds), 0);
        assert!(!expires(1, 1000));
        assert!(!expires(1, 1060));
        assert!(expires(1, 1061));
        assert!(!expires(2, 1062), "it was renewed");
        assert!(!expires(2, 1122));
        assert!(expires(2, 1123));
    }

    #[test]
    fn three_boots_of_five_hours_make_fifteen_and_a_date_that_jumps_counts_nothing() {
        const HOUR: u64 = 3600;
        let mut seen = BTreeMap::new();
        let mut expires = |boot, hours, date| {
            is_expired(
                &lease(1, 12 * 3600),
                &mut seen,
                &at(boot, hours * HOUR),
                date,
            )
        };
        let year = 365 * 24 * HOUR;
        for boot in ["a", "b"] {
            assert!(!expires(boot, 1, 50 * year));
            assert!(!expires(boot, 6, 60 * year));
        }
        assert!(!expires("c", 1, 10 * year), "ten hours");
        assert!(!expires("c", 3, 10 * year), "twelve hours");
        assert!(expires("c", 6, 10 * year), "fifteen hours");
    }

    #[test]
    fn a_file_of_a_newer_release_stays_and_nothing_expires() {
        let dir = tempfile::tempdir().unwrap();
        let env = Env::from_pairs([("XDG_STATE_HOME", dir.path().to_str().unwrap())]);
        std::fs::create_dir(ledger::directory(&env)).unwrap();
        let newer = r#"{"format":9,"leases":{}}"#;
        std::fs::write(path(&env), newer).unwrap();
        assert!(!has_expired(&lease(1, 0), &env));
        assert_eq!(std::fs::read_to_string(path(&env)).unwrap(), newer);
        std::fs::write(path(&env), "{}").unwrap();
        assert!(!has_expired(&lease(1, 0), &env), "seen once");
        assert!(
            std::fs::read_to_string(path(&env))
                .unwrap()
                .contains("\"u\"")
        );
    }
}
