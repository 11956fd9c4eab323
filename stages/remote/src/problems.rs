//! Mistakes in a user's file, each with its place.

use std::ops::Range;

use protocol::config::count;
use protocol::{Exit, Problem, StageError, problem};

use crate::plan::Source;

/// The error for a file that asks for what cannot be.
pub(crate) fn refused(source: &Source, problems: Vec<Problem>) -> StageError {
    let file = problem::Source::new(source.path, source.document.text());
    let placed = problems
        .into_iter()
        .map(|p| p.in_document(&file, source.document));
    let mut placed: Vec<Problem> = placed.collect();
    placed.sort_by_key(Problem::offset);
    let message = format!("{} has {}", source.path.display(), count(&placed));
    StageError::new("remote.config", message)
        .problems(placed)
        .hint("nothing was written or started; mend the file and try again")
        .exit(Exit::Usage)
}

/// What there stands that only PyYAML makes sense of.
pub(crate) fn odd(source: &Source, within: Range<usize>) -> Vec<Problem> {
    let file = problem::Source::new(source.path, source.document.text());
    let there = source.document.oddities().iter();
    let there = there.filter(|odd| within.contains(&odd.range.start));
    there
        .map(|odd| Problem::new("", &odd.message).at(&file, odd.range.clone()))
        .collect()
}
