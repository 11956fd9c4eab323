//! How long to wait before the next attempt: longer each time, and never all clients at once.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(10);

/// Full jitter: anything between nothing and a bound that doubles.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    attempts: u32,
}

impl Backoff {
    pub(crate) fn next(&mut self) -> Duration {
        let bound = FIRST
            .saturating_mul(1 << self.attempts.min(16))
            .min(LONGEST);
        self.attempts += 1;
        let part = getrandom::u32().map_or(1.0, |n| f64::from(n) / f64::from(u32::MAX));
        bound.mul_f64(part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_bound_and_differ() {
        let mut backoff = Backoff::default();
        assert!(backoff.next() <= FIRST);
        let later: Vec<Duration> = (0..200).map(|_| backoff.next()).skip(10).collect();
        assert!(later.iter().all(|wait| *wait <= LONGEST));
        assert!(
            later.iter().any(|wait| *wait > LONGEST / 2)
                && later.iter().any(|wait| *wait < LONGEST / 2)
        );
    }
}
