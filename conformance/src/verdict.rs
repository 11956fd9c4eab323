//! What came of a check.

use std::fmt::Display;

/// Why a check did not pass.
#[derive(Debug)]
pub(super) enum Finding {
    /// The stage does not do what the protocol says.
    Failed(String),
    /// It could not be checked here; the second text is the mend.
    Skipped(String, String),
}

pub(super) type Verdict = Result<(), Finding>;

impl From<std::io::Error> for Finding {
    fn from(error: std::io::Error) -> Finding {
        Finding::Failed(format!("the kit itself failed: {error}"))
    }
}

impl From<rustix::io::Errno> for Finding {
    fn from(error: rustix::io::Errno) -> Finding {
        Finding::from(std::io::Error::from(error))
    }
}

pub(super) fn failed<T>(what: impl Display) -> Result<T, Finding> {
    Err(Finding::Failed(what.to_string()))
}

pub(super) fn skipped<T>(why: impl Display, mend: impl Display) -> Result<T, Finding> {
    Err(Finding::Skipped(why.to_string(), mend.to_string()))
}

/// Fails, with what was found, unless it holds.
pub(super) fn demand(holds: bool, found: impl FnOnce() -> String) -> Verdict {
    match holds {
        true => Ok(()),
        false => failed(found()),
    }
}

/// A line, or the beginning of it, for people.
pub(super) fn shown(bytes: &[u8]) -> String {
    const SHOWN: usize = 300;
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(SHOWN)]);
    let more = bytes.len().saturating_sub(SHOWN);
    match more {
        0 => format!("`{}`", text.trim_end()),
        _ => format!("`{text}…` ({more} bytes more)"),
    }
}
