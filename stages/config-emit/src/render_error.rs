//! The error of a config that cannot be rendered.

use protocol::config::count;
use protocol::{Code, Problem, StageError};

use crate::base::Base;
use crate::codes;

/// Problems in a base, or values that do not fit, each with its place.
#[derive(Clone, Debug)]
pub(crate) struct RenderError {
    code: &'static Code,
    /// The problems.
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

    /// Converts it to the stage's error.
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
