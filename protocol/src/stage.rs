//! What a program has to bring to be a stage; the runtime brings the rest.

use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::codes::{self, Codes};
use crate::context::Context;
use crate::error::StageError;
use crate::ledger::Entry;
use crate::leftover::Leftover;
use crate::problem::Problem;
use crate::provides::Provides;
use crate::validate::{self, Exposure, Gate, Unknown};

/// A stage. See `config-emit` for a small one.
#[allow(
    async_fn_in_trait,
    reason = "the runtime drives every stage on the thread that it runs on"
)]
pub trait Stage: Sized + 'static {
    /// The kind, such as `tunnel`. The binary is `devcluster-<kind>`; it is also the default instance name.
    const KIND: &'static str;
    /// How the program is called, when it is not `devcluster-<kind>`.
    const PROGRAM: Option<&'static str> = None;
    /// Version of the program.
    const VERSION: &'static str;
    /// Lists of the error codes that it ends with, beside those of every program.
    const CODES: &'static [Codes] = &[];
    /// What it is for, in a paragraph; the head of `--help`.
    const ABOUT: &'static str;
    /// The end of `--help`: commands to copy.
    const EXAMPLES: &'static str = "";

    /// Doc comments of the fields become the help of their flags. Use `deny_unknown_fields`.
    type Config: DeserializeOwned + JsonSchema;
    /// What the stage finds out.
    type Outputs: Serialize + DeserializeOwned + JsonSchema + Clone + PartialEq + Send + 'static;

    /// How the program is called.
    fn program() -> String {
        Self::PROGRAM.map_or_else(|| format!("devcluster-{}", Self::KIND), str::to_owned)
    }

    /// Checks what types cannot say. Every problem at once.
    fn validate(_config: &Self::Config) -> Vec<Problem> {
        Vec::new()
    }

    /// What the outputs mean.
    fn provides() -> Provides {
        Provides::new()
    }

    /// Who waits for it in a file that does not say.
    const GATE: Gate = Gate::Stage;

    /// Who reaches what by it; the worst that the unknown values leave open. `None` is a config that cannot be read.
    fn exposes(_config: Option<&Self::Config>, _unknown: &Unknown) -> Vec<Exposure> {
        Vec::new()
    }

    /// What it is going to do, in a line for people. The fields are as written, defaults included.
    fn outline(_fields: &Map<String, Value>) -> String {
        let first = Self::ABOUT.split(['.', ':']).next().unwrap_or_default();
        first.to_owned()
    }

    /// Adds what only all instances of a file together, their upstreams and the targets tell.
    fn validate_file(_request: &validate::Request, _answer: &mut validate::Answer) {}

    /// The config asks for a document on stdout: no protocol lines then.
    fn takes_stdout(_config: &Self::Config) -> bool {
        false
    }

    /// What was found out, in a line for people.
    fn summary(outputs: &Self::Outputs) -> String {
        serde_json::to_string(outputs).unwrap_or_default()
    }

    /// Prepares, calls [`Context::ready`], and holds until [`Context::shutdown`] is cancelled.
    async fn run(cx: &Context<Self>, config: Self::Config) -> Result<(), StageError>;

    /// Does the work once and leaves no process. Refused unless a stage says otherwise.
    async fn once(_cx: &Context<Self>, _config: Self::Config) -> Result<Self::Outputs, StageError> {
        let program = Self::program();
        Err(StageError::new(
            codes::ONCE_UNSUPPORTED,
            format!("{program} cannot run once: what it reports holds only while it runs"),
        )
        .hint(format!(
            "use `{program} run`, with `-- command…` to hold it while a command runs"
        )))
    }

    /// Whether what was reported still holds. An error says what does not.
    async fn check(
        cx: &Context<Self>,
        config: Option<Self::Config>,
        outputs: Self::Outputs,
    ) -> Result<(), StageError>;

    /// Everything that can be known to be missing before `run` is tried, with [`Context::report`]: each thing by itself, side
    /// by side where they do not depend on each other, and what could not be looked at as skipped. Leaves nothing behind,
    /// also outside, and takes nothing that others use. No lock is held, and an instance may run meanwhile.
    async fn preflight(_cx: &Context<Self>, _config: Self::Config) {}

    /// More looks that `check` takes beside `--preflight`: the name of a flag, and its help.
    const DIAGNOSTICS: &'static [(&'static str, &'static str)] = &[];

    /// One of [`Stage::DIAGNOSTICS`]. Reports as a preflight does, and leaves nothing behind either.
    async fn diagnose(_cx: &Context<Self>, _config: Self::Config, _name: &str) {}

    /// Whether the next `run` may go on with what a dead run left: then it is not undone before that run, which finds it in
    /// [`Context::ledger`]. `cleanup` undoes it all the same.
    fn is_resumable(_entry: &Entry) -> bool {
        false
    }

    /// What a dead run left of a ledger entry, in the order in which it is removed; looked at where it is, also outside, and
    /// left as it is. `cleanup --dry-run` prints the list, also while the instance runs; `cleanup`, `gc` and the next `run`
    /// remove each thing, latest entry first. Needs no config.
    async fn leftovers<'a>(
        cx: &'a Context<Self>,
        entry: &'a Entry,
    ) -> Result<Vec<Leftover<'a>>, StageError>;
}
