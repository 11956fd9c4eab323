//! What a program implements to be a stage. The runtime does the rest.

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
    /// The program's name, when it is not `devcluster-<kind>`.
    const PROGRAM: Option<&'static str> = None;
    /// Version of the program.
    const VERSION: &'static str;
    /// Lists of the error codes of the stage, besides those of every program.
    const CODES: &'static [Codes] = &[];
    /// The purpose of the stage, in one paragraph: the head of `--help`.
    const ABOUT: &'static str;
    /// Example commands, shown at the end of `--help`.
    const EXAMPLES: &'static str = "";

    /// The config. Doc comments of its fields become the help of their flags. Use `deny_unknown_fields`.
    type Config: DeserializeOwned + JsonSchema;
    /// The values that the stage reports.
    type Outputs: Serialize + DeserializeOwned + JsonSchema + Clone + PartialEq + Send + 'static;

    /// The program's name.
    fn program() -> String {
        Self::PROGRAM.map_or_else(|| format!("devcluster-{}", Self::KIND), str::to_owned)
    }

    /// Checks what the types cannot express. Returns every problem at once.
    fn validate(_config: &Self::Config) -> Vec<Problem> {
        Vec::new()
    }

    /// What the outputs mean.
    fn provides() -> Provides {
        Provides::new()
    }

    /// Who waits until the stage is ready, when the config file does not set `gate`.
    const GATE: Gate = Gate::Stage;

    /// Who can reach which port through the stage. Unknown values count as the worst case. `None`: the config cannot be read.
    fn exposes(_config: Option<&Self::Config>, _unknown: &Unknown) -> Vec<Exposure> {
        Vec::new()
    }

    /// What a run of the stage does, in one line for people. The fields are as written, with defaults.
    fn outline(_fields: &Map<String, Value>) -> String {
        let first = Self::ABOUT.split(['.', ':']).next().unwrap_or_default();
        first.to_owned()
    }

    /// Adds what depends on all instances of a file together, on their upstreams, or on the targets.
    fn validate_file(_request: &validate::Request, _answer: &mut validate::Answer) {}

    /// Whether the config asks for a document on stdout. Then the stage writes no protocol lines.
    fn takes_stdout(_config: &Self::Config) -> bool {
        false
    }

    /// The outputs in one line for people.
    fn summary(outputs: &Self::Outputs) -> String {
        serde_json::to_string(outputs).unwrap_or_default()
    }

    /// Prepares, calls [`Context::ready`], and keeps the outputs valid until [`Context::shutdown`] is cancelled.
    async fn run(cx: &Context<Self>, config: Self::Config) -> Result<(), StageError>;

    /// Does the work once and leaves no process. A stage that does not implement it refuses the verb.
    async fn once(_cx: &Context<Self>, _config: Self::Config) -> Result<Self::Outputs, StageError> {
        let program = Self::program();
        Err(StageError::new(
            codes::ONCE_UNSUPPORTED,
            format!("{program} cannot run once: its outputs are valid only while it runs"),
        )
        .hint(format!(
            "use `{program} run`, with `-- command…` to keep it up while a command runs"
        )))
    }

    /// Checks whether the reported outputs are still valid. The error names what is not.
    async fn check(
        cx: &Context<Self>,
        config: Option<Self::Config>,
        outputs: Self::Outputs,
    ) -> Result<(), StageError>;

    /// Lets the guard of the running instance examine what it guards, and waits for the result: `wait --guard`. See
    /// [`Exposure::guard_field`].
    async fn examine(_cx: &Context<Self>) {}

    /// Reports with [`Context::report`] everything that can be known to be missing before a run: one check per thing,
    /// independent checks concurrently, and checks that cannot be made as skipped. Leaves nothing behind, also on servers
    /// and clusters, and takes nothing that others use. Holds no lock: an instance may run at the same time.
    async fn preflight(_cx: &Context<Self>, _config: Self::Config) {}

    /// More diagnostics of `check` besides `--preflight`: the name of each flag, and its help.
    const DIAGNOSTICS: &'static [(&'static str, &'static str)] = &[];

    /// Runs one of [`Stage::DIAGNOSTICS`]. Like a preflight, it only reports and leaves nothing behind.
    async fn diagnose(_cx: &Context<Self>, _config: Self::Config, _name: &str) {}

    /// Whether the next `run` can resume what a dead run left. Then it is not removed before that run, which finds the
    /// entry in [`Context::ledger`]. `cleanup` removes it in any case.
    fn is_resumable(_entry: &Entry) -> bool {
        false
    }

    /// Whether what a parked entry names is still needed: `cleanup --keep` removes what is not before its time is over.
    async fn is_needed(_cx: &Context<Self>, _entry: &Entry) -> bool {
        true
    }

    /// Lists what a dead run left for a ledger entry, in the order of removal. It looks where the things are, also on servers
    /// and clusters, and changes nothing. `cleanup --dry-run` prints the list, also while the instance runs; `cleanup`, `gc`
    /// and the next `run` remove each thing, the latest entry first. Needs no config.
    async fn leftovers<'a>(
        cx: &'a Context<Self>,
        entry: &'a Entry,
    ) -> Result<Vec<Leftover<'a>>, StageError>;
}
