//! Writes the result and shows differences.

use std::path::Path;

use anstyle::{AnsiColor, Style};
use protocol::{StageError, files};
use similar::TextDiff;

use crate::codes;

pub(crate) fn write(path: &Path, text: &str) -> Result<(), StageError> {
    files::replace(path, text.as_bytes(), true).map_err(|e| {
        StageError::new(
            codes::CANNOT_WRITE,
            format!("cannot write {}", path.display()),
        )
        .source(&e)
    })
}

/// Whether the file already has this text.
pub(crate) fn is_written(path: &Path, text: &str) -> bool {
    matches!(files::read(path), Ok(Some(bytes)) if bytes == text.as_bytes())
}

/// The difference between two texts, for people.
pub(crate) fn diff(from: (&Path, &str), to: (&Path, &str), colours: bool) -> String {
    let diff = TextDiff::from_lines(from.1, to.1)
        .unified_diff()
        .header(&from.0.display().to_string(), &to.0.display().to_string())
        .to_string();
    if !colours {
        return diff;
    }
    let painted = diff.lines().map(|line| {
        let style = match line.as_bytes() {
            [b'+', b'+', b'+', ..] | [b'-', b'-', b'-', ..] => Style::new().bold(),
            [b'+', ..] => AnsiColor::Green.on_default(),
            [b'-', ..] => AnsiColor::Red.on_default(),
            [b'@', ..] => AnsiColor::Cyan.on_default(),
            _ => return format!("{line}\n"),
        };
        format!("{style}{line}{style:#}\n")
    });
    painted.collect()
}
