//! What came of a check: nothing to say, or an error; one that is a [`Skipped`] says that it was not tried.

pub(super) type Verdict = anyhow::Result<()>;

/// It could not be checked here.
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
