/// Why a text is refused: `PyYAML` refuses it, or reads it differently.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {message}")]
pub struct Error {
    pub message: String,
    /// The byte offset of the error.
    pub offset: usize,
    pub line: usize,
    pub column: usize,
}

impl Error {
    pub(crate) fn at(text: &str, offset: usize, message: impl Into<String>) -> Error {
        let (line, column) = location(text, offset);
        Error {
            message: message.into(),
            offset,
            line,
            column,
        }
    }
}

/// Line and column of a byte offset. Both count from 1, the column in characters.
#[must_use]
pub fn location(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let start = before.rfind(['\n', '\r']).map_or(0, |i| i + 1);
    let column = before[start..].trim_start_matches('\u{feff}');
    let breaks = before.replace("\r\n", "\n");
    (
        breaks.matches(['\n', '\r']).count() + 1,
        column.chars().count() + 1,
    )
}
