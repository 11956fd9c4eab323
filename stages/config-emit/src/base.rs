//! The base file.

use std::path::{Path, PathBuf};

use protocol::problem::SourceFile;
use protocol::yaml::{Document, PyYamlOnly};
use protocol::{Problem, StageError, files};

use crate::codes;

/// The base: the file to start from.
#[derive(Clone, Debug)]
pub(crate) struct Base {
    /// Its path.
    pub path: PathBuf,
    /// Its content.
    pub document: Document,
    /// Its text, for messages.
    pub source: SourceFile,
}

impl Base {
    /// Reads the file.
    pub(crate) fn read(path: &Path) -> Result<Base, StageError> {
        let shown = path.display();
        let bytes = files::read_bytes(path).map_err(|e| {
            StageError::new(
                codes::BASE_UNREADABLE,
                format!("cannot read the base {shown}"),
            )
            .source(&e)
        })?;
        let not_yaml =
            || StageError::new(codes::BASE_NOT_YAML, format!("cannot read {shown} as YAML"));
        let text = String::from_utf8(bytes).map_err(|e| not_yaml().source(&e))?;
        let source = SourceFile::new(path, &text);
        let document = Document::parse_as_pyyaml(&text);
        let document = document.map_err(|e| not_yaml().problems(vec![source.problem(&e)]))?;
        // devcluster uses the last of duplicate keys; Determined refuses duplicates in a config of its own.
        let own = !document.contains(&["stages".into()]);
        let duplicates = document.pyyaml_only().iter();
        let duplicates = duplicates.filter(|it| own && it.duplicate);
        let problem = |it: &PyYamlOnly| Problem::new("", &it.message).at(&source, it.range.clone());
        let problems: Vec<Problem> = duplicates.map(problem).collect();
        if !problems.is_empty() {
            return Err(not_yaml().problems(problems));
        }
        Ok(Base {
            path: path.to_owned(),
            document,
            source,
        })
    }
}
