//! Reading and editing, compared with the real PyYAML.

use proptest::test_runner::{Config as ProptestConfig, RngSeed};

mod edit_chains;
mod editing;
mod pyyaml;
mod reading;
mod styled;

/// The same cases in every run; with `DEVCLUSTER_ROUNDS` so many times as many, and others in each run.
fn cases(cases: u32) -> ProptestConfig {
    let rounds = std::env::var("DEVCLUSTER_ROUNDS").ok();
    let rounds = rounds.map(|rounds| rounds.parse::<u32>().expect("a number"));
    ProptestConfig {
        cases: cases * rounds.unwrap_or(1),
        failure_persistence: None,
        rng_seed: rounds.map_or(RngSeed::Fixed(1), |_| RngSeed::Random),
        ..ProptestConfig::default()
    }
}
