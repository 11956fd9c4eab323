//! A user's file, and errors with the mistakes in it.

use std::cell::LazyCell;
use std::ops::Range;
use std::path::Path;

use protocol::config::count;
use protocol::yaml::Document;
use protocol::{Problem, StageError, problem};

use crate::codes;

/// A parsed file, by the name that messages show.
#[derive(Clone, Copy)]
pub struct InputFile<'a> {
    /// Path as given.
    pub path: &'a Path,
    /// Its content.
    pub document: &'a Document,
}

/// Reads a file by PyYAML's rules: parts that only devcluster reads stay unchanged.
pub(crate) fn read(file: &Path) -> Result<Document, StageError> {
    let shown = file.display();
    let text = protocol::files::read_text(file)
        .map_err(|e| StageError::new(codes::NO_FILE, format!("cannot read {shown}")).source(&e))?;
    Document::parse_as_pyyaml(&text).map_err(|e| {
        let problem = problem::SourceFile::new(file, &text).problem(&e);
        StageError::new(codes::CONFIG, format!("cannot read {shown} as YAML"))
            .problems(vec![problem])
    })
}

/// The error for mistakes in a file.
pub(crate) fn refused(source: &InputFile, problems: Vec<Problem>) -> StageError {
    let file = problem::SourceFile::new(source.path, source.document.text());
    let placed = problems
        .into_iter()
        .map(|p| p.in_document(&file, source.document));
    let mut placed: Vec<Problem> = placed.collect();
    placed.sort_by_key(Problem::offset);
    let message = format!("{} has {}", source.path.display(), count(&placed));
    StageError::new(codes::CONFIG, message).problems(placed)
}

/// The error for mistakes in the flat form, which is a file or the command line.
pub(crate) fn refused_flat(file: Option<InputFile>, problems: Vec<Problem>) -> StageError {
    if let Some(file) = file {
        return refused(&file, problems);
    }
    let causes = problems.iter().map(Problem::to_string);
    causes.fold(usage("the flags are not valid"), StageError::cause)
}

pub(crate) fn usage(message: impl Into<String>) -> StageError {
    StageError::new(protocol::codes::USAGE, message)
}

/// Problems for what only PyYAML accepts in a range.
pub(crate) fn pyyaml_only(source: &InputFile, within: Range<usize>) -> Vec<Problem> {
    let file = LazyCell::new(|| problem::SourceFile::new(source.path, source.document.text()));
    let there = source.document.pyyaml_only().iter();
    let there = there.filter(|pyyaml_only| within.contains(&pyyaml_only.range.start));
    there
        .map(|pyyaml_only| {
            Problem::new("", &pyyaml_only.message).at(&file, pyyaml_only.range.clone())
        })
        .collect()
}
