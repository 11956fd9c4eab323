//! Random moments and numbers.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// Anything between nothing and this.
pub fn moment_within(longest: Duration) -> Duration {
    // std seeds its hashers at random, and has no other random numbers.
    let number = RandomState::new().hash_one(longest);
    longest.mul_f64(number as f64 / u64::MAX as f64)
}

/// How many, or for how long: what `make soak` asks for, else what is enough for `make test`.
pub fn asked_for(variable: &str, otherwise: u64) -> u64 {
    let asked = std::env::var(variable).ok();
    asked.and_then(|n| n.parse().ok()).unwrap_or(otherwise)
}
