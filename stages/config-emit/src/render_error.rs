//! Why there is no config.

use protocol::config::count;
use protocol::{Exit, Problem, StageError};

use crate::base::Base;

/// Mistakes in a base, or values that do not fit into it; each with its place.
#[derive(Clone, Debug)]
pub(crate) struct RenderError {
    code: &'static str,
    hint: &'static str,
    /// What is wrong.
    pub problems: Vec<Problem>,
}

impl RenderError {
    pub(crate) fn new(
        code: &'static str,
        hint: &'static str,
        problems: impl IntoIterator<Item = Problem>,
    ) -> RenderError {
        let problems = problems.into_iter().collect();
        RenderError {
            code,
            hint,
            problems,
        }
    }

    pub(crate) fn bad_references(problems: impl IntoIterator<Item = Problem>) -> RenderError {
        let hint = "a reference is `${{ instance.path }}`; `devcluster-<kind> describe` prints what an instance of that kind reports";
        RenderError::new("config_emit.bad_reference", hint, problems)
    }

    pub(crate) const REFUSED: &str = "config_emit.refused";

    /// The error as the stage reports it.
    pub(crate) fn error(self, base: &Base) -> StageError {
        let message = match self.code {
            RenderError::REFUSED => "Determined would refuse the config from",
            _ => "cannot render the config from",
        };
        let (base, count) = (base.path.display(), count(&self.problems));
        StageError::new(self.code, format!("{message} {base}: {count}"))
            .problems(self.problems)
            .hint(self.hint)
            .exit(Exit::Usage)
    }
}
