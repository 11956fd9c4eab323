//! Shared code of the programs that are not stages: the driver, the kit, the sandbox.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::codes;
use crate::env::Env;
use crate::error::{Exit, StageError};

/// The rest of `main` after the command line is parsed. The work runs on one thread: a child's parent-death signal follows
/// the thread that started it.
pub fn run(name: &str, work: impl Future<Output = Result<u8, StageError>>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let Ok(runtime) = runtime else {
        return ExitCode::from(Exit::Internal as u8);
    };
    let code = runtime.block_on(work).unwrap_or_else(|error| {
        say(error.render(name).trim_end());
        error.exit_code() as u8
    });
    // A read of stdin may never return.
    runtime.shutdown_background();
    ExitCode::from(code)
}

/// Writes a line to stderr in one write, since devcluster logs each write as it comes. Ignores a closed stderr.
pub fn say(line: &str) {
    drop(std::io::stderr().write_all(format!("{line}\n").as_bytes()));
}

/// Finds a program of this project: beside the running one, else on `$PATH`.
pub fn find(name: &str, env: &Env) -> Result<PathBuf, StageError> {
    let own = std::env::current_exe().ok();
    let beside = own.and_then(|own| env.find_program(own.parent()?.join(name).to_str()?));
    beside.or_else(|| env.find_program(name)).ok_or_else(|| {
        StageError::new(
            codes::PROGRAM_MISSING,
            format!("the program {name} is neither beside this one nor on $PATH"),
        )
    })
}
