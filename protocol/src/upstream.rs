//! The outputs of upstream stages, from the run directory or from the pipe on stdin.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::codes;
use crate::error::StageError;
use crate::message::Message;
use crate::provides::{self, Provides};
use crate::rundir::{OutputsFile, Phase, RunDir, Status};

/// How long to wait for an instance that does not run.
const ABSENT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a failure that was recorded before the wait began may be that of an old run: devcluster starts the wait before
/// it starts the process.
const OLD_FAILURE_TIMEOUT: Duration = Duration::from_secs(2);

/// The report of an upstream.
#[derive(Clone, Debug, PartialEq)]
pub struct Upstream {
    /// The values.
    pub outputs: Map<String, Value>,
    /// Their meaning: JSON pointers into them, by meaning.
    pub provides: Provides,
}

impl Upstream {
    /// The value with this meaning, or the named part of it.
    pub fn find(&self, meaning: &str, part: Option<&str>) -> Option<&Value> {
        provides::find(&self.provides, &self.outputs, meaning, part)
    }
}

/// The reports of upstreams, by instance.
pub type Reports = BTreeMap<String, Upstream>;

/// The upstream stages.
#[derive(Clone, Debug)]
pub struct Upstreams(Origin);

#[derive(Clone, Debug)]
enum Origin {
    RunDir {
        run_dir: RunDir,
        own: String,
        kind: &'static str,
    },
    Chain(Arc<Chain>),
}

/// The messages of the pipe so far.
#[derive(Debug, Default)]
pub(crate) struct Chain {
    state: Mutex<ChainState>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct ChainState {
    /// Every instance that sent a message; `None` before its `ready`.
    seen: BTreeMap<String, Option<Upstream>>,
    found: BTreeMap<String, Upstream>,
    failed: Option<(String, StageError)>,
    ended: bool,
}

impl Chain {
    fn state(&self) -> MutexGuard<'_, ChainState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records a message of an upstream.
    pub(crate) fn take(&self, message: Message) {
        let mut state = self.state();
        let name = message.stage().to_owned();
        match message {
            Message::Outputs(o) => {
                let (outputs, provides) = (o.outputs, o.provides);
                let upstream = Upstream { outputs, provides };
                state.found.insert(name.clone(), upstream);
                state.seen.entry(name).or_default();
            }
            Message::Ready { .. } => {
                let found = state.found.get(&name).cloned();
                state.seen.insert(name, found);
            }
            Message::Error(f) if f.error.fatal => state.failed = Some((name, f.error)),
            _ => drop(state.seen.entry(name).or_default()),
        }
        drop(state);
        self.changed.notify_waiters();
    }

    pub(crate) fn end(&self) {
        self.state().ended = true;
        self.changed.notify_waiters();
    }

    fn readiness(&self, names: &[String]) -> Readiness {
        let state = self.state();
        if let Some((name, error)) = &state.failed {
            return Readiness::Failed(upstream_failed(name, Some(error)));
        }
        let wanted: Vec<&String> = if names.is_empty() {
            state.seen.keys().collect()
        } else {
            names.iter().collect()
        };
        let reports: Reports = wanted
            .iter()
            .filter_map(|n| Some(((*n).clone(), state.seen.get(*n)?.clone()?)))
            .collect();
        if reports.len() == wanted.len() && !reports.is_empty() {
            return Readiness::Ready(reports);
        }
        if state.ended {
            let missing = wanted.iter().find(|n| !reports.contains_key(**n));
            return Readiness::Failed(match missing {
                Some(name) => upstream_failed(name, None),
                None => no_upstream(),
            });
        }
        Readiness::Pending
    }
}

enum Readiness {
    Ready(Reports),
    Pending,
    Failed(StageError),
}

fn no_upstream() -> StageError {
    StageError::new(
        codes::NO_UPSTREAM,
        "no messages on stdin: no stage writes to the pipe",
    )
}

fn upstream_failed(name: &str, error: Option<&StageError>) -> StageError {
    let failed = match error {
        Some(e) => StageError::new(
            codes::UPSTREAM_FAILED,
            format!("{name} failed: {}", e.message),
        )
        .cause(format!("code {}", e.code)),
        None => StageError::new(
            codes::UPSTREAM_FAILED,
            format!("{name} ended before it was ready"),
        ),
    };
    let hint = error
        .and_then(|e| e.hint.clone())
        .unwrap_or_else(|| format!("what {name} wrote says why"));
    failed.hint(hint)
}

impl Upstreams {
    /// The upstreams of an instance of this name and kind in a run directory. It is not its own upstream.
    pub fn from_run_dir(run_dir: RunDir, own: String, kind: &'static str) -> Upstreams {
        Upstreams(Origin::RunDir { run_dir, own, kind })
    }

    pub(crate) fn from_chain(chain: Arc<Chain>) -> Upstreams {
        Upstreams(Origin::Chain(chain))
    }

    /// Waits until all of these are ready. Without names: every stage of the pipe, or every other instance that is alive in the
    /// run directory now, except those of the same kind, which would wait for this one. Fails as soon as one of them cannot
    /// become ready.
    pub async fn wait(&self, names: &[String]) -> Result<Reports, StageError> {
        match &self.0 {
            Origin::Chain(chain) => loop {
                let changed = chain.changed.notified();
                match chain.readiness(names) {
                    Readiness::Ready(reports) => return Ok(reports),
                    Readiness::Failed(error) => return Err(error),
                    Readiness::Pending => changed.await,
                }
            },
            Origin::RunDir { run_dir, own, kind } => {
                let mut reports = Reports::new();
                for name in wanted(names, run_dir, own, kind) {
                    let outputs = ReadinessWait::new(run_dir, &name).wait(|_| {}).await?;
                    reports.insert(name, outputs.into());
                }
                Ok(reports)
            }
        }
    }

    /// The current reports of these instances, or of all without names. Instances that are not ready are absent.
    pub fn reports(&self, names: &[String]) -> Reports {
        match &self.0 {
            Origin::Chain(chain) => {
                let state = chain.state();
                let known = state
                    .seen
                    .iter()
                    .filter(|(n, _)| names.is_empty() || names.contains(n));
                known
                    .filter_map(|(n, u)| Some((n.clone(), u.clone()?)))
                    .collect()
            }
            Origin::RunDir { run_dir, own, kind } => {
                let live = |n: String| Some((n.clone(), run_dir.live_outputs(&n)?.into()));
                let names = wanted(names, run_dir, own, kind).into_iter();
                names.filter_map(live).collect()
            }
        }
    }

    /// Waits until the report of an upstream differs from `seen`. An upstream that is absent counts as unchanged: its next run
    /// will report.
    pub async fn changed(&self, names: &[String], seen: &Reports) -> Reports {
        let mut changes = None;
        loop {
            let mut now = seen.clone();
            now.extend(self.reports(names));
            if now
                .iter()
                .any(|(n, u)| seen.get(n).is_none_or(|s| s.outputs != u.outputs))
            {
                return now;
            }
            match &self.0 {
                Origin::Chain(chain) => chain.changed.notified().await,
                Origin::RunDir { run_dir, .. } => run_dir.next_change(&mut changes).await,
            }
        }
    }
}

/// These; without names, every other instance that is alive, except those of the same kind.
fn wanted(names: &[String], run_dir: &RunDir, own: &str, kind: &str) -> Vec<String> {
    if !names.is_empty() {
        return names.to_vec();
    }
    let other = |name: &String| {
        name != own
            && run_dir.holder(name).is_some()
            && run_dir
                .status(name)
                .is_none_or(|status| status.kind != kind)
    };
    run_dir.instances().into_iter().filter(other).collect()
}

impl From<OutputsFile> for Upstream {
    fn from(file: OutputsFile) -> Upstream {
        Upstream {
            outputs: file.reported.outputs,
            provides: file.reported.provides,
        }
    }
}

/// Waits for one instance in a run directory, for the verb `wait` and for the upstreams of a stage.
pub(crate) struct ReadinessWait<'a> {
    run_dir: &'a RunDir,
    instance: &'a str,
    began: Instant,
    /// The failed run at the start of the wait, to tell it from a new one.
    old_failure: Option<String>,
}

impl<'a> ReadinessWait<'a> {
    pub(crate) fn new(run_dir: &'a RunDir, instance: &'a str) -> ReadinessWait<'a> {
        let old_failure = run_dir
            .status(instance)
            .filter(|s| s.phase == Phase::Failed)
            .map(|s| s.run);
        ReadinessWait {
            run_dir,
            instance,
            began: Instant::now(),
            old_failure,
        }
    }

    /// Resolves with the outputs, or with the error why the instance cannot become ready. `progress` gets each new step.
    pub(crate) async fn wait(
        &self,
        mut progress: impl FnMut(&str),
    ) -> Result<OutputsFile, StageError> {
        let mut shown: Option<String> = None;
        let mut changes = None;
        loop {
            if let Some(outputs) = self.run_dir.live_outputs(self.instance) {
                return Ok(outputs);
            }
            let holder = self.run_dir.holder(self.instance);
            let status = self.run_dir.status(self.instance);
            if let Some(error) = self.verdict(holder.as_deref(), status.as_ref()) {
                return Err(error);
            }
            let current = status
                .filter(|s| Some(&s.run) == holder.as_ref())
                .and_then(|s| s.message);
            if current != shown {
                progress(current.as_deref().unwrap_or_default());
                shown = current;
            }
            self.run_dir.next_change(&mut changes).await;
        }
    }

    fn verdict(&self, holder: Option<&str>, status: Option<&Status>) -> Option<StageError> {
        let failure = status.filter(|s| s.phase == Phase::Failed);
        let waited = self.began.elapsed();
        match (holder, failure) {
            (Some(run), Some(status)) if status.run == run => {
                Some(upstream_failed(self.instance, status.error.as_ref()))
            }
            (Some(_), _) => None,
            (None, Some(status)) => {
                let old = self.old_failure.as_ref() == Some(&status.run);
                (!old || waited >= OLD_FAILURE_TIMEOUT)
                    .then(|| upstream_failed(self.instance, status.error.as_ref()))
            }
            (None, None) if waited >= ABSENT_TIMEOUT => Some(self.absent()),
            (None, None) => None,
        }
    }

    fn absent(&self) -> StageError {
        let (name, path) = (self.instance, self.run_dir.path().display());
        StageError::new(
            codes::UPSTREAM_MISSING,
            format!("no process runs {name} in {path}"),
        )
        .hint(format!(
            "start {name} with the same --run-dir, or see what it wrote when it ended"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn two_of_a_kind_do_not_wait_for_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let run_dir = RunDir::open(&dir.path().join("r")).unwrap();
        let _lock = run_dir.lock("b", "bb").await.unwrap();
        run_dir.write_status(&Status {
            dcs: 1,
            stage: "b".into(),
            kind: "config-emit".into(),
            run: "bb".into(),
            pid: 1,
            phase: Phase::Preparing,
            since_ms: 0,
            message: None,
            error: None,
        });
        let upstreams = Upstreams::from_run_dir(run_dir, "a".into(), "config-emit");
        let wait = tokio::time::timeout(Duration::from_secs(5), upstreams.wait(&[]));
        assert!(wait.await.unwrap().unwrap().is_empty());
    }
}
