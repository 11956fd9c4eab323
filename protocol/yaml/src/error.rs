/// Why a text is not a document that `PyYAML` and we read alike. Lines and columns count from 1,
/// columns in characters.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {message}")]
pub struct Error {
    pub message: String,
    pub line: usize,
    pub column: usize,
}
