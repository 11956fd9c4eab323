//! `devcluster-remote`: one file in, a running cluster out.

mod ask;
mod call;
pub mod cli;
pub mod compile;
pub mod devcluster;
pub mod doctor;
mod exposure;
pub mod flat;
pub mod gc;
pub mod host;
pub mod input;
pub mod kinds;
mod manual;
pub mod migrate;
mod numbers;
mod outline;
mod places;
pub mod plan;
mod plugins;
mod preflight;
mod problems;
pub mod schema;
mod schema_check;
pub mod status;
mod stock;
mod summary;
pub mod up;
