//! Writes a later stage's config from a base and the outputs of the stages before it.
//!
//! [`render::render`] is a pure function of texts and values; [`determined`] knows what a Determined master refuses,
//! [`protocol::reference`] what `${{ … }}` means.

use std::process::ExitCode;

mod assign;
mod base;
mod codes;
mod config;
mod consumed;
pub mod determined;
mod determined_fields;
mod emitted;
mod exec;
mod file;
mod follow;
mod format;
mod judge;
mod preflight;
mod render;
mod render_error;
mod restart;
mod stage;
mod stage_config;
mod substitute;
mod validate;
mod values;

pub use config::{Config, ConfigEmit, Outputs};

/// The `main` of the program: a stage, and two verbs of its own.
pub fn main() -> ExitCode {
    let mut args: Vec<_> = std::env::args_os().collect();
    let verb = args.get(1).and_then(|a| a.to_str()).unwrap_or_default();
    let own: Option<fn(_) -> ExitCode> = match verb {
        "exec" => Some(exec::main),
        "restart" => Some(restart::main),
        _ => None,
    };
    match own {
        Some(main) => {
            args.remove(1);
            main(args)
        }
        None => protocol::run_stage::<ConfigEmit>(),
    }
}
