//! `devcluster-remote`: one file in, a running cluster out.

pub mod cli;
pub mod compile;
pub mod devcluster;
pub mod gc;
pub mod host;
pub mod input;
mod numbers;
pub mod plan;
mod problems;
pub mod sandbox;
pub mod up;
