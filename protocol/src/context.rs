//! What a stage has in hand while it works.

use std::marker::PhantomData;
use std::sync::Arc;

use serde_json::{Map, Value};

use crate::codes;
use crate::env::Env;
use crate::error::StageError;
use crate::ledger::Ledger;
use crate::message::{Check, Level};
use crate::preflight::CheckTitle;
use crate::provides::Provides;
use crate::reporter::Reporter;
use crate::rundir::RunDir;
use crate::shutdown::Shutdown;
use crate::stage::Stage;
use crate::upstream::Upstreams;

/// What a stage has in hand while it works. Clones share everything.
#[derive(Clone)]
pub struct Context<S: Stage> {
    /// Name of this instance.
    pub instance: String,
    /// The environment to read variables from.
    pub env: Env,
    /// Where the stages of this devcluster meet.
    pub run_dir: RunDir,
    /// What has to be undone should this process die.
    pub ledger: Ledger,
    /// The end, when it comes.
    pub shutdown: Shutdown,
    /// What the stages before this one found out.
    pub upstream: Upstreams,
    pub(crate) reporter: Arc<Reporter>,
    pub(crate) kind: PhantomData<fn() -> S>,
}

impl<S: Stage> Context<S> {
    /// Tells where the work stands. `step` is a stable word, `message` is for people.
    pub fn progress(&self, step: &str, message: impl Into<String>) {
        self.reporter.progress(step, message.into(), None);
    }

    /// The same, for work that can be counted.
    pub fn progress_count(&self, step: &str, message: impl Into<String>, done: u64, total: u64) {
        self.reporter
            .progress(step, message.into(), Some((done, total)));
    }

    /// A line for whoever looks for a fault.
    pub fn debug(&self, message: impl Into<String>) {
        self.reporter.log(Level::Debug, message.into());
    }

    /// A line worth knowing.
    pub fn info(&self, message: impl Into<String>) {
        self.reporter.log(Level::Info, message.into());
    }

    /// It works, but not as one would wish.
    pub fn warn(&self, message: impl Into<String>) {
        self.reporter.log(Level::Warn, message.into());
    }

    /// Text for people alone.
    pub fn say(&self, text: &str) {
        self.reporter.say(text);
    }

    /// Reports that these outputs hold now. The outputs file is on disk before `ready` is written. May be called again: with
    /// other outputs their generation rises, and after [`Context::degraded`] the stage is ready again. Waits until a
    /// document has left.
    pub async fn ready(&self, outputs: S::Outputs) -> Result<(), StageError> {
        self.delivered().await?;
        self.reporter
            .ready(object(&outputs)?, &S::summary(&outputs))
    }

    /// Says what the outputs mean, where the type alone does not tell it. Before the first [`Context::ready`].
    pub fn set_provides(&self, provides: Provides) {
        self.reporter.set_provides(provides);
    }

    /// Reports what `once` found out.
    pub(crate) async fn publish(&self, outputs: &S::Outputs) -> Result<Value, StageError> {
        self.delivered().await?;
        let map = object(outputs)?;
        self.reporter.publish(map.clone())?;
        self.reporter.say(&S::summary(outputs));
        Ok(Value::Object(map))
    }

    /// Reports that the outputs do not hold for the moment, and why.
    pub fn degraded(&self, error: StageError) {
        self.reporter.degraded(error.fatal(false));
    }

    /// Reports one thing that [`Stage::preflight`] looked at.
    pub fn report(&self, check: Check) {
        self.reporter.report(check);
    }

    /// Reports what came of one thing: what was found, which may be empty, or the error that a run would end with.
    pub fn report_result(&self, (id, title): CheckTitle, outcome: Result<String, StageError>) {
        self.report(match outcome {
            Ok(found) => Check::ok(id, title, found),
            Err(error) => Check::failed(id, title, &error),
        });
    }

    /// Reports that these were not looked at, and why.
    pub fn skip(&self, titles: &[CheckTitle], why: &str) {
        for (id, title) in titles {
            self.report(Check::skipped(id, title, why));
        }
    }

    /// The outputs of the run before, when it had come that far and they still parse.
    pub fn previous(&self) -> Option<S::Outputs> {
        let previous = self.reporter.previous()?;
        serde_json::from_value(Value::Object(previous.outputs)).ok()
    }

    /// Writes a document to stdout. Only for a config of which [`Stage::takes_stdout`] says so. The outputs are reported
    /// once all of it has been written; that it could not be is an error then.
    pub fn document(&self, bytes: Vec<u8>) {
        self.reporter.document(bytes);
    }

    /// Waits for the reader of a document for as long as there is one and nobody asks for the end.
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
                "stopped before the document on stdout was read to its end",
            )),
        }
    }
}

fn object<T: serde::Serialize>(outputs: &T) -> Result<Map<String, Value>, StageError> {
    match serde_json::to_value(outputs) {
        Ok(Value::Object(map)) => Ok(map),
        _ => Err(StageError::internal(
            "the outputs of a stage have to be a JSON object",
        )),
    }
}
