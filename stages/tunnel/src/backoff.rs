//! Pauses between attempts: they grow, and they differ between clients.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(250);

/// Full jitter: a random part of a bound that doubles.
#[derive(Debug)]
pub(crate) struct Backoff {
    attempts: u32,
    longest: Duration,
}

impl Backoff {
    pub(crate) fn new(longest: Duration) -> Backoff {
        Backoff {
            attempts: 0,
            longest,
        }
    }

    /// Starts again with short pauses.
    pub(crate) fn reset(&mut self) {
        self.attempts = 0;
    }

    pub(crate) fn next(&mut self) -> Duration {
        let bound = FIRST
            .saturating_mul(1 << self.attempts.min(16))
            .min(self.longest);
        self.attempts += 1;
        bound.mul_f64(fastrand::f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_differ() {
        const LONGEST: Duration = Duration::from_secs(10);
        let mut backoff = Backoff::new(LONGEST);
        assert!(backoff.next() <= FIRST);
        let later: Vec<Duration> = (0..200).map(|_| backoff.next()).skip(10).collect();
        assert!(later.iter().all(|wait| *wait <= LONGEST));
        assert!(
            later.iter().any(|wait| *wait > LONGEST / 2)
                && later.iter().any(|wait| *wait < LONGEST / 2)
        );
    }
}
