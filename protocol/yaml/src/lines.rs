use crate::Error;

/// A place in the text. Both count from 1; the column counts characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Location {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

/// Byte offsets of line starts, so that an offset becomes a place without rescanning the text.
#[derive(Debug, Clone)]
pub(crate) struct Lines {
    starts: Vec<usize>,
}

impl Lines {
    pub(crate) fn of(text: &str) -> Lines {
        let bytes = text.as_bytes();
        let mut starts = vec![0];
        for (i, b) in bytes.iter().enumerate() {
            if *b == b'\n' || (*b == b'\r' && bytes.get(i + 1) != Some(&b'\n')) {
                starts.push(i + 1);
            }
        }
        Lines { starts }
    }

    pub(crate) fn locate(&self, text: &str, offset: usize) -> Location {
        let line = self.starts.partition_point(|s| *s <= offset);
        let start = self.starts[line - 1];
        let column = text
            .get(start..offset)
            .map_or(0, |s| s.trim_start_matches('\u{feff}').chars().count());
        Location {
            line,
            column: column + 1,
        }
    }

    pub(crate) fn error(&self, text: &str, offset: usize, message: impl Into<String>) -> Error {
        let at = self.locate(text, offset);
        Error {
            message: message.into(),
            line: at.line,
            column: at.column,
        }
    }
}
