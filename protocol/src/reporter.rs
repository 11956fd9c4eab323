//! Reports everything that a stage says to stdout, stderr and the run directory.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value};
use tokio::sync::watch;

use crate::call::Events;
use crate::error::StageError;
use crate::io::Sink;
use crate::message::{self, Check, CheckStatus, Failure, Level, Message, Outputs};
use crate::provides::Provides;
use crate::rundir::{OutputsFile, Phase, RunDir, Status};

/// The one place that reports for a stage.
pub(crate) struct Reporter {
    pub(crate) kind: &'static str,
    pub(crate) program: String,
    pub(crate) instance: String,
    pub(crate) run: String,
    pub(crate) events: Events,
    pub(crate) stdout: Sink,
    pub(crate) stderr: Sink,
    state: Mutex<State>,
    readiness: watch::Sender<bool>,
}

struct State {
    /// Set once the lock is held; before that nothing is written to the run directory.
    run_dir: Option<RunDir>,
    status: Status,
    previous: Option<OutputsFile>,
    outputs: Option<Map<String, Value>>,
    provides: Provides,
    generation: u64,
    /// Whether a document was written to stdout.
    document: bool,
    /// The number of reported checks, and of those that failed.
    checks: (usize, usize),
}

fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_millis() as u64)
}

impl Reporter {
    pub(crate) fn new(
        kind: &'static str,
        program: String,
        instance: String,
        run: String,
        events: Events,
        stdout: Sink,
        stderr: Sink,
    ) -> Reporter {
        let status = Status {
            dcs: message::VERSION,
            stage: instance.clone(),
            kind: kind.to_owned(),
            run: run.clone(),
            pid: std::process::id(),
            phase: Phase::Starting,
            since_ms: now_ms(),
            message: None,
            error: None,
        };
        let state = State {
            run_dir: None,
            status,
            previous: None,
            outputs: None,
            provides: Provides::new(),
            generation: 0,
            document: false,
            checks: (0, 0),
        };
        Reporter {
            kind,
            program,
            instance,
            run,
            events,
            stdout,
            stderr,
            state: Mutex::new(state),
            readiness: watch::Sender::new(false),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on, reports are also written to this run directory.
    pub(crate) fn attach(&self, run_dir: RunDir, previous: Option<OutputsFile>) {
        let mut state = self.state();
        state.run_dir = Some(run_dir);
        state.generation = previous.as_ref().map_or(0, |p| p.reported.generation);
        state.previous = previous;
        state.write_status();
    }

    /// From now on, nothing is written to the run directory.
    pub(crate) fn detach(&self) {
        self.state().run_dir = None;
    }

    /// Whether another program reads every message.
    pub(crate) fn speaks(&self) -> bool {
        self.events == Events::All
    }

    /// Sets the meaning of the outputs.
    pub(crate) fn set_provides(&self, provides: Provides) {
        self.state().provides = provides;
    }

    /// The outputs of the previous run.
    pub(crate) fn previous(&self) -> Option<OutputsFile> {
        self.state().previous.clone()
    }

    pub(crate) fn document(&self, bytes: Vec<u8>) {
        self.state().document = true;
        self.stdout.write(bytes);
    }

    pub(crate) fn has_document(&self) -> bool {
        self.state().document
    }

    pub(crate) fn readiness(&self) -> watch::Receiver<bool> {
        self.readiness.subscribe()
    }

    pub(crate) fn send(&self, message: &Message) {
        let wanted = match self.events {
            Events::All => true,
            Events::Ready => matches!(message, Message::Ready { .. }),
            Events::None => false,
        };
        if !wanted {
            return;
        }
        if let Ok(mut line) = message::encode(message) {
            if matches!(message, Message::Ready { .. }) {
                // devcluster searches each chunk that it reads: one of two copies is always whole.
                line.extend_from_within(..);
            }
            if line.len() <= crate::frame::MAX_LINE {
                self.write(line, message.is_droppable());
            }
        }
    }

    /// Passes on a line of an upstream stage unchanged.
    pub(crate) fn relay(&self, mut line: Vec<u8>, spare: bool) {
        if self.events == Events::All {
            line.push(b'\n');
            self.write(line, spare);
        }
    }

    fn write(&self, line: Vec<u8>, spare: bool) {
        match spare {
            true => self.stdout.write_lossy(line),
            false => self.stdout.write(line),
        }
    }

    pub(crate) fn say(&self, text: &str) {
        let mut lines = String::new();
        for line in text.trim_end().lines() {
            lines.push_str(&format!("{}: {line}\n", self.instance));
        }
        self.stderr.write_lossy(lines.into_bytes());
    }

    pub(crate) fn progress(&self, step: &str, message: String, count: Option<(u64, u64)>) {
        match count {
            Some((done, total)) => self.say(&format!("{message} ({done}/{total})")),
            None => self.say(&message),
        }
        let mut state = self.state();
        state.status.message = Some(message.clone());
        state.write_status();
        drop(state);
        self.send(&Message::Progress {
            stage: self.instance.clone(),
            step: step.to_owned(),
            message,
            done: count.map(|c| c.0),
            total: count.map(|c| c.1),
        });
    }

    pub(crate) fn log(&self, level: Level, message: String) {
        match level {
            Level::Debug => {}
            Level::Info => self.say(&message),
            Level::Warn => self.say(&format!("warning: {message}")),
        }
        self.send(&Message::Log {
            stage: self.instance.clone(),
            level,
            message,
        });
    }

    pub(crate) fn ready(
        &self,
        outputs: Map<String, Value>,
        summary: &str,
    ) -> Result<(), StageError> {
        let generation = self.publish(outputs)?;
        self.state()
            .enter(Phase::Ready, Some(summary.to_owned()), None);
        self.send(&Message::Ready {
            stage: self.instance.clone(),
            run: self.run.clone(),
            generation,
        });
        self.say(&format!("ready: {summary}"));
        self.readiness.send_replace(true);
        Ok(())
    }

    /// Writes and sends outputs if they changed, and returns their generation.
    pub(crate) fn publish(&self, outputs: Map<String, Value>) -> Result<u64, StageError> {
        let mut state = self.state();
        if state.outputs.as_ref() == Some(&outputs) {
            return Ok(state.generation);
        }
        let as_before = state.outputs.is_none()
            && state
                .previous
                .as_ref()
                .is_some_and(|p| p.reported.outputs == outputs);
        state.generation = state.generation.saturating_add(u64::from(!as_before));
        let generation = state.generation;
        let reported = Outputs {
            stage: self.instance.clone(),
            kind: self.kind.to_owned(),
            run: self.run.clone(),
            generation,
            outputs,
            provides: state.provides.clone(),
        };
        self.write_outputs(&state, &reported)?;
        state.outputs = Some(reported.outputs.clone());
        drop(state);
        self.send(&Message::Outputs(reported));
        Ok(generation)
    }

    fn write_outputs(&self, state: &State, reported: &Outputs) -> Result<(), StageError> {
        let Some(run_dir) = &state.run_dir else {
            return Ok(());
        };
        run_dir.write_outputs(&OutputsFile {
            dcs: message::VERSION,
            reported: reported.clone(),
            secrets: Map::new(),
            prev: state
                .outputs
                .clone()
                .or_else(|| Some(state.previous.as_ref()?.reported.outputs.clone())),
        })
    }

    pub(crate) fn degraded(&self, error: StageError) {
        self.say(
            &error
                .render("degraded")
                .replacen("degraded: error: ", "degraded: ", 1),
        );
        self.state()
            .enter(Phase::Degraded, None, Some(error.clone()));
        self.readiness.send_replace(false);
        self.send(&Message::Degraded(Failure {
            stage: self.instance.clone(),
            error,
        }));
    }

    pub(crate) fn report(&self, mut check: Check) {
        // Without a prefix, so that users can copy from it.
        self.stderr
            .write_lossy(format!("{}\n", check.render()).into_bytes());
        check.stage.clone_from(&self.instance);
        let mut state = self.state();
        state.checks.0 += 1;
        state.checks.1 += usize::from(check.status == CheckStatus::Failed);
        drop(state);
        self.send(&Message::Check(check));
    }

    /// The number of reported checks, and of those that failed.
    pub(crate) fn reported(&self) -> (usize, usize) {
        self.state().checks
    }

    /// Reports the error that ends the stage. Only the first one is reported.
    pub(crate) fn failed(&self, error: &StageError) {
        if self.state().status.phase == Phase::Failed {
            return;
        }
        self.state().enter(Phase::Failed, None, Some(error.clone()));
        self.refused(error.clone());
    }

    /// Reports a command of the host that is refused. Nothing else changes.
    pub(crate) fn refused(&self, error: StageError) {
        self.stderr.write(error.render(&self.program).into_bytes());
        self.send(&Message::Error(Failure {
            stage: self.instance.clone(),
            error,
        }));
    }

    pub(crate) fn enter(&self, phase: Phase) {
        self.state().enter(phase, None, None);
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.state().outputs.is_some()
    }
}

impl State {
    fn enter(&mut self, phase: Phase, message: Option<String>, error: Option<StageError>) {
        self.status.phase = phase;
        self.status.since_ms = now_ms();
        self.status.message = message;
        if error.is_some() {
            self.status.error = error;
        }
        self.write_status();
    }

    fn write_status(&self) {
        if let Some(run_dir) = &self.run_dir {
            run_dir.write_status(&self.status);
        }
    }
}
