//! `devcluster-remote`: one file in, a running cluster out.

pub mod cli;
pub mod compile;
pub mod devcluster;
mod exposure;
pub mod gc;
pub mod host;
pub mod input;
mod numbers;
pub mod plan;
mod problems;
pub mod sandbox;
mod say;
pub mod up;
