//! Mistakes in a user's file, each with its place.

use protocol::{Exit, Problem, StageError, config};

use crate::plan::Source;

/// The error for a file that asks for what cannot be.
pub(crate) fn refused(source: &Source, mut problems: Vec<Problem>) -> StageError {
    for problem in &mut problems {
        let path = config::segments(&problem.path);
        let at = (0..=path.len())
            .rev()
            .find_map(|n| source.document.locate(&path[..n]));
        if let (None, Some(at)) = (&problem.place, at) {
            problem.place = Some(format!(
                "{}:{}:{}",
                source.path.display(),
                at.line,
                at.column
            ));
        }
    }
    let count = match problems.len() {
        1 => "1 problem".to_owned(),
        n => format!("{n} problems"),
    };
    let mut error = StageError::new(
        "remote.config",
        format!("{} has {count}", source.path.display()),
    )
    .hint("nothing was written or started; mend the file and try again")
    .exit(Exit::Usage);
    error.caused_by = problems.iter().map(Problem::to_string).collect();
    error
}
