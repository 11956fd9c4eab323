//! What the runtime gives to a running stage.

use std::marker::PhantomData;
use std::sync::{Arc, OnceLock};

use serde_json::{Map, Value};

use crate::codes;
use crate::env::Env;
use crate::error::StageError;
use crate::identity::{Identities, Identity};
use crate::ledger::Ledger;
use crate::message::{Check, Level};
use crate::preflight::CheckTitle;
use crate::provides::Provides;
use crate::reporter::Reporter;
use crate::rundir::RunDir;
use crate::shutdown::Shutdown;
use crate::stage::Stage;
use crate::upstream::Upstreams;

/// What the runtime gives to a running stage. Clones share everything.
#[derive(Clone)]
pub struct Context<S: Stage> {
    /// Name of this instance.
    pub instance: String,
    /// The environment to read variables from.
    pub env: Env,
    /// The run directory, shared by the stages of this devcluster.
    pub run_dir: RunDir,
    /// Records what has to be removed should this process die.
    pub ledger: Ledger,
    /// The request to stop.
    pub shutdown: Shutdown,
    /// The outputs of upstream stages.
    pub upstream: Upstreams,
    pub(crate) lasting: bool,
    pub(crate) keeps: bool,
    pub(crate) identity: Arc<OnceLock<Identity>>,
    pub(crate) reporter: Arc<Reporter>,
    pub(crate) kind: PhantomData<fn() -> S>,
}

impl<S: Stage> Context<S> {
    /// Who this instance is, over all of its runs. The first run creates the identity, and `cleanup` by hand removes it. A
    /// verb that only looks gets one of its own where there is none.
    pub fn identity(&self) -> Result<Identity, StageError> {
        if let Some(known) = self.identity.get() {
            return Ok(known.clone());
        }
        let identity = self.identities()?.get(&self.instance)?;
        Ok(self.identity.get_or_init(|| identity).clone())
    }

    /// The identity of the run directory, which the instances of one file share.
    pub fn run_dir_identity(&self) -> Result<Identity, StageError> {
        self.identities()?.get("")
    }

    pub(crate) fn identities(&self) -> Result<Identities, StageError> {
        Identities::open(&self.env, self.run_dir.path(), self.ledger.writes())
    }

    /// The id of this run.
    pub fn run_id(&self) -> &str {
        &self.reporter.run
    }

    /// Whether the run belongs to a session of a user that may be resumed, so that what tasks depend on stays when it ends.
    /// False with a command, in a pipe, and for a driver that runs once.
    pub fn is_lasting(&self) -> bool {
        self.lasting
    }

    /// Whether the verb is `cleanup --keep`: what an orderly stop would keep is parked, not removed.
    pub fn keeps(&self) -> bool {
        self.keeps
    }

    /// Reports the current step. `step` is a stable word, `message` is for people.
    pub fn progress(&self, step: &str, message: impl Into<String>) {
        self.reporter.progress(step, message.into(), None);
    }

    /// The same, for work that can be counted.
    pub fn progress_count(&self, step: &str, message: impl Into<String>, done: u64, total: u64) {
        self.reporter
            .progress(step, message.into(), Some((done, total)));
    }

    /// Logs a line for debugging.
    pub fn debug(&self, message: impl Into<String>) {
        self.reporter.log(Level::Debug, message.into());
    }

    /// Logs a line for users.
    pub fn info(&self, message: impl Into<String>) {
        self.reporter.log(Level::Info, message.into());
    }

    /// Logs a warning.
    pub fn warn(&self, message: impl Into<String>) {
        self.reporter.log(Level::Warn, message.into());
    }

    /// Writes text for people to stderr, without a protocol line.
    pub fn say(&self, text: &str) {
        self.reporter.say(text);
    }

    /// Reports that these outputs are valid. The outputs file is on disk before `ready` is written. Can be called again: other
    /// outputs raise the generation, and after [`Context::degraded`] the stage is ready again. Waits until a document is
    /// written.
    pub async fn ready(&self, outputs: S::Outputs) -> Result<(), StageError> {
        self.delivered().await?;
        self.reporter
            .ready(object(&outputs)?, &S::summary(&outputs))
    }

    /// Sets the meaning of the outputs where it depends on the config. Call it before the first [`Context::ready`].
    pub fn set_provides(&self, provides: Provides) {
        self.reporter.set_provides(provides);
    }

    /// Reports the outputs of `once`.
    pub(crate) async fn publish(&self, outputs: &S::Outputs) -> Result<Value, StageError> {
        self.delivered().await?;
        let map = object(outputs)?;
        self.reporter.publish(map.clone())?;
        self.reporter.say(&S::summary(outputs));
        Ok(Value::Object(map))
    }

    /// Reports that the outputs are not valid at the moment, and why.
    pub fn degraded(&self, error: StageError) {
        self.reporter.degraded(error.fatal(false));
    }

    /// Reports one check of [`Stage::preflight`].
    pub fn report(&self, check: Check) {
        self.reporter.report(check);
    }

    /// Reports the result of one check: what was found, which may be empty, or the error that a run would end with.
    pub fn report_result(&self, (id, title): CheckTitle, outcome: Result<String, StageError>) {
        self.report(match outcome {
            Ok(found) => Check::ok(id, title, found),
            Err(error) => Check::failed(id, title, &error),
        });
    }

    /// Reports these checks as skipped, and why.
    pub fn skip(&self, titles: &[CheckTitle], why: &str) {
        for (id, title) in titles {
            self.report(Check::skipped(id, title, why));
        }
    }

    /// The outputs of the previous run, if it reported any and they still parse.
    pub fn previous(&self) -> Option<S::Outputs> {
        let previous = self.reporter.previous()?;
        serde_json::from_value(Value::Object(previous.reported.outputs)).ok()
    }

    /// Writes a document to stdout. Only for a config for which [`Stage::takes_stdout`] is true. [`Context::ready`] waits until
    /// all of it is written, and returns the error of a failed write.
    pub fn document(&self, bytes: Vec<u8>) {
        self.reporter.document(bytes);
    }

    /// Waits until the document is written, or a shutdown is requested.
    async fn delivered(&self) -> Result<(), StageError> {
        if !self.reporter.has_document() {
            return Ok(());
        }
        tokio::select! {
            biased;
            written = self.reporter.stdout.flush() => {
                written.map_err(|e| StageError::io("cannot write the document to stdout", &e))
            }
            () = self.shutdown.requested() => Err(StageError::new(
                codes::INTERRUPTED,
                "stopped before the whole document was written to stdout",
            )),
        }
    }
}

fn object<T: serde::Serialize>(outputs: &T) -> Result<Map<String, Value>, StageError> {
    match serde_json::to_value(outputs) {
        Ok(Value::Object(map)) => Ok(map),
        _ => Err(StageError::internal(
            "the outputs of a stage must be a JSON object",
        )),
    }
}
