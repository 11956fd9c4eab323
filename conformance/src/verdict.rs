//! The verdict of a check: passed, or an error; the error [`Skipped`] means that it was not made.

pub(super) type Verdict = anyhow::Result<()>;

/// The check cannot be made here.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{why}")]
pub(super) struct Skipped {
    pub(super) why: String,
    /// What to do about it.
    pub(super) hint: String,
}

pub(super) fn skipped(why: impl Into<String>, hint: impl Into<String>) -> anyhow::Error {
    let (why, hint) = (why.into(), hint.into());
    Skipped { why, hint }.into()
}
