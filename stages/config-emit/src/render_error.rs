//! Why there is no config.

use protocol::config::count;
use protocol::{Code, Problem, StageError};

use crate::base::Base;
use crate::codes;

/// Mistakes in a base, or values that do not fit into it; each with its place.
#[derive(Clone, Debug)]
pub(crate) struct RenderError {
    code: &'static Code,
    /// What is wrong.
    pub problems: Vec<Problem>,
}

impl RenderError {
    pub(crate) fn new(
        code: &'static Code,
        problems: impl IntoIterator<Item = Problem>,
    ) -> RenderError {
        let problems = problems.into_iter().collect();
        RenderError { code, problems }
    }

    pub(crate) fn bad_references(problems: impl IntoIterator<Item = Problem>) -> RenderError {
        RenderError::new(codes::BAD_REFERENCE, problems)
    }

    /// The error as the stage reports it.
    pub(crate) fn error(self, base: &Base) -> StageError {
        let message = if self.code == codes::REFUSED {
            "Determined would refuse the config from"
        } else {
            "cannot render the config from"
        };
        let (base, count) = (base.path.display(), count(&self.problems));
        StageError::new(self.code, format!("{message} {base}: {count}")).problems(self.problems)
    }
}
