//! Benchmarks, compared with other tools in the same run: `make bench`.

mod config_emit;
mod gateway;
mod report;
mod tunnel;
mod way;
