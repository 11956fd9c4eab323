//! Reading the base, writing the result, and their errors with file and line.

use std::path::Path;

use protocol::yaml::{Document, Location};
use protocol::{Exit, StageError, files};
use similar::TextDiff;

use crate::render::RenderError;

pub(crate) fn read(path: &Path) -> Result<Document, StageError> {
    let shown = path.display();
    let text = std::fs::read_to_string(path).map_err(|e| {
        StageError::new("config_emit.base_unreadable", format!("cannot read the base {shown}"))
            .source(&e)
            .hint("name a devcluster.yaml, or the <temp_dir>/<stage>.conf that devcluster writes when it starts, with --base")
            .exit(Exit::Usage)
    })?;
    Document::parse(&text).map_err(|e| {
        let place = place(path, Some(Location { line: e.line, column: e.column }));
        StageError::new("config_emit.base_not_yaml", format!("{place}: {}", e.message))
            .hint("mend that line: devcluster and Determined would not read the file either, or not as it is meant")
            .exit(Exit::Usage)
    })
}

pub(crate) fn write(path: &Path, text: &str) -> Result<(), StageError> {
    files::replace(path, text.as_bytes(), true).map_err(|e| {
        StageError::new(
            "config_emit.cannot_write",
            format!("cannot write {}", path.display()),
        )
        .source(&e)
        .hint("name a file in a directory of yours that exists with --out")
    })
}

/// Whether the file already is what would be written.
pub(crate) fn is_written(path: &Path, text: &str) -> bool {
    matches!(files::read(path), Ok(Some(bytes)) if bytes == text.as_bytes())
}

/// What differs between two texts, for people.
pub(crate) fn diff(from: (&Path, &str), to: (&Path, &str)) -> String {
    TextDiff::from_lines(from.1, to.1)
        .unified_diff()
        .header(&from.0.display().to_string(), &to.0.display().to_string())
        .to_string()
}

fn place(path: &Path, at: Option<Location>) -> String {
    match at {
        Some(at) => format!("{}:{}:{}", path.display(), at.line, at.column),
        None => path.display().to_string(),
    }
}

/// The error as the stage reports it.
pub(crate) fn explain(base: &Path, error: RenderError) -> StageError {
    let (code, at, hint) = match &error {
        RenderError::NotAConfig { at } => (
            "config_emit.base_not_config",
            *at,
            "name a devcluster.yaml or a master's config with --base",
        ),
        RenderError::NoMasterStage { at, .. } => (
            "config_emit.no_master_stage",
            *at,
            "list a `- master:` stage, or name yours with --stage",
        ),
        RenderError::NoKubernetes { at } => (
            "config_emit.no_kubernetes",
            *at,
            "set `resource_manager: {type: kubernetes, …}` in the master's config_file",
        ),
        RenderError::CannotEdit(e) => (
            "config_emit.cannot_edit",
            Some(Location {
                line: e.line,
                column: e.column,
            }),
            "write that part of the file in a plainer way",
        ),
        RenderError::Refused(violations) => return refused(base, violations),
    };
    StageError::new(code, format!("{}: {error}", place(base, at)))
        .hint(hint)
        .exit(Exit::Usage)
}

fn refused(
    base: &Path,
    violations: &[(Option<Location>, crate::determined::Violation)],
) -> StageError {
    let lines = violations
        .iter()
        .map(|(at, violation)| format!("{}: {violation}", place(base, *at)));
    let lines: Vec<String> = lines.collect();
    StageError::new(
        "config_emit.refused",
        format!("Determined would refuse this config:\n{}", lines.join("\n")),
    )
    .hint("mend these lines, or the config of the stage that reports the values")
    .exit(Exit::Usage)
}
