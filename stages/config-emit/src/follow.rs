//! Follows the upstreams: when they report new values, restarts the stages that use outdated ones.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::time::{Duration, SystemTime};

use protocol::devcluster::RestartOutcome;
use protocol::{Context, Reports, StageError};
use tokio::time::Instant;

use crate::config::{Config, ConfigEmit, OnChange};
use crate::emitted::Emitted;
use crate::restart;
use crate::{consumed, file};

/// First and longest time until the next look at a stage that is starting. Each look writes devcluster's state into its
/// log.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// Keeps the stages of a devcluster up to date.
pub(crate) struct Follower<'a> {
    cx: &'a Context<ConfigEmit>,
    config: &'a Config,
    restarted: HashMap<String, Instant>,
    /// Stages that need no action until new values are reported.
    settled: Vec<String>,
    pause: Duration,
}

impl<'a> Follower<'a> {
    pub(crate) fn new(cx: &'a Context<ConfigEmit>, config: &'a Config) -> Follower<'a> {
        Follower {
            cx,
            config,
            restarted: HashMap::new(),
            settled: Vec::new(),
            pause: RETRY_MIN,
        }
    }

    /// New values were reported: starts again with all stages.
    pub(crate) fn reset(&mut self) {
        self.settled.clear();
        self.pause = RETRY_MIN;
    }

    /// Restarts stages with outdated values. Returns when to look again, if necessary.
    pub(crate) async fn reconcile(
        &mut self,
        reports: &Reports,
        emitted: &Emitted,
    ) -> Result<Option<Instant>, StageError> {
        let Some(socket) = &self.config.control_socket else {
            self.write(emitted)?;
            return Ok(None);
        };
        // devcluster writes both when it starts; with --oneshot only the base.
        let began = modified(self.config.base.as_ref().unwrap_or(socket));
        let records = consumed::records(&self.cx.run_dir, began).into_iter();
        let stale = records.filter(|record| record.is_stale(reports));
        let mut stale: Vec<String> = stale.map(|record| record.stage).collect();
        if let Some(path) = self.config.file()
            && !file::is_written(path, &emitted.text)
        {
            let written = modified(path);
            // No stage of this devcluster has read an older file. A stage that started since has read this one; a later
            // one renders it again.
            if written.is_none() || written < began {
                file::write(path, &emitted.text)?;
            } else {
                stale.push(self.config.stage.clone());
            }
        }
        stale.sort();
        stale.dedup();
        stale.retain(|name| !self.settled.contains(name));
        if stale.is_empty() {
            return Ok(None);
        }
        emitted.show(self.cx, self.config);
        match self.config.on_change {
            OnChange::Warn => {
                self.warn_to_restart(&stale, "");
                Ok(None)
            }
            OnChange::Restart => Ok(self.restart(socket, stale).await),
        }
    }

    /// Without a devcluster, keeps the file up to date. A document on stdout stays as it is.
    fn write(&mut self, emitted: &Emitted) -> Result<(), StageError> {
        let Some(path) = self.config.file() else {
            return Ok(());
        };
        if file::is_written(path, &emitted.text) {
            return Ok(());
        }
        emitted.show(self.cx, self.config);
        file::write(path, &emitted.text)?;
        self.warn_to_restart(std::slice::from_ref(&self.config.stage), "");
        Ok(())
    }

    async fn restart(&mut self, socket: &Path, stale: Vec<String>) -> Option<Instant> {
        let now = Instant::now();
        let interval = self.config.restart_interval();
        let due = |name: &String| self.restarted.get(name).map(|at| *at + interval);
        let (wait, ready): (Vec<_>, Vec<_>) = stale
            .into_iter()
            .partition(|name| due(name).is_some_and(|due| due > now));
        let mut again = wait.iter().filter_map(due).min();
        if ready.is_empty() {
            return again;
        }
        match restart::request(socket, &ready).await {
            Ok(outcomes) => {
                if self.apply_outcomes(&outcomes) {
                    let later = Instant::now() + self.pause;
                    self.pause = (self.pause * 2).min(RETRY_MAX);
                    again = Some(again.map_or(later, |again| again.min(later)));
                }
            }
            Err(error) => self.warn_to_restart(&ready, &format!("; {}", error.message)),
        }
        again
    }

    /// Records the outcomes. Returns whether some stage is still starting.
    fn apply_outcomes(&mut self, outcomes: &BTreeMap<String, RestartOutcome>) -> bool {
        let mut starting = false;
        for (name, outcome) in outcomes {
            match outcome {
                RestartOutcome::Restarted => {
                    self.restarted.insert(name.clone(), Instant::now());
                    self.cx.info(format!(
                        "{name} uses outdated values: devcluster restarts it"
                    ));
                }
                RestartOutcome::AboveTarget => {
                    let why = "; it is above devcluster's target";
                    self.warn_to_restart(std::slice::from_ref(name), why);
                }
                RestartOutcome::Starting => {
                    starting = true;
                    continue;
                }
                RestartOutcome::Down | RestartOutcome::Crashed | RestartOutcome::Unknown => {}
            }
            self.settled.push(name.clone());
        }
        starting
    }

    fn warn_to_restart(&mut self, stages: &[String], why: &str) {
        for stage in stages {
            self.cx.warn(format!(
                "the config of {stage} has changed: restart {stage} to use it{why}"
            ));
            self.settled.push(stage.clone());
        }
    }
}

fn modified(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|m| m.modified()).ok()
}
