//! Starts what crashed again, under a devcluster with a control socket. devcluster itself never does.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use protocol::devcluster::{Outcomes, RestartOutcome, request};
use protocol::files;
use protocol::program::say;
use tokio::time::Instant;

use super::orphans::Orphan;

/// How often the list of processes is looked at. devcluster replaces it at every start and end.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// The first and the longest pause before a start. It doubles.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// A stage is started again at most so many times within this time.
const MOST: usize = 5;
const WINDOW: Duration = Duration::from_secs(600);

/// A stage of devcluster.
pub(crate) struct Stage {
    pub(crate) name: String,
    /// Whether it is started again.
    pub(crate) ours: bool,
}

/// Watches the processes of a devcluster.
pub(crate) struct Restarts {
    /// `devcluster-config-emit`, which talks to devcluster.
    program: PathBuf,
    temp_dir: PathBuf,
    /// In devcluster's order: the first has the key 1.
    stages: Vec<Stage>,
    /// The version of the list of processes, and the list: command lines by process id.
    version: Option<(u64, i64, i64)>,
    running: BTreeMap<u32, String>,
    /// The command lines of processes that ended and were not replaced; an empty one for a process that was never seen.
    ended: BTreeSet<String>,
    /// Stages that were started again, and when.
    started: Vec<(Instant, String)>,
    /// Requests in a row that found devcluster busy.
    waits: u32,
    /// Crashed stages that were reported and are not started again.
    reported: BTreeSet<String>,
}

impl Restarts {
    pub(crate) fn new(program: PathBuf, temp_dir: PathBuf, stages: Vec<Stage>) -> Restarts {
        Restarts {
            program,
            temp_dir,
            stages,
            version: None,
            running: BTreeMap::new(),
            ended: BTreeSet::new(),
            started: Vec::new(),
            waits: 0,
            reported: BTreeSet::new(),
        }
    }

    /// Starts again what crashes, until it is dropped.
    pub(crate) async fn watch(mut self) -> Infallible {
        let mut due = None;
        loop {
            tokio::time::sleep(POLL_INTERVAL).await;
            self.look();
            let now = Instant::now();
            match due {
                _ if self.ended.is_empty() => due = None,
                None => due = Some(now + self.pause(now)),
                Some(at) if at > now => {}
                Some(_) => {
                    due = None;
                    self.start_again().await;
                }
            }
        }
    }

    /// Notices what ended. A connection to devcluster that stays open could block or kill it.
    fn look(&mut self) {
        let path = self.temp_dir.join("running.json");
        let meta = path.symlink_metadata();
        let version = meta.ok().map(|it| (it.ino(), it.mtime(), it.mtime_nsec()));
        if version == self.version {
            return;
        }
        let list = files::read(&path).ok().flatten();
        let list = list.and_then(|list| serde_json::from_slice::<Vec<Orphan>>(&list).ok());
        let Some(list) = list else { return };
        let processes = list.into_iter().filter_map(|it| match it {
            Orphan::Process {
                pid, match_args, ..
            } => Some((pid, match_args)),
            Orphan::Container { .. } => None,
        });
        let now: BTreeMap<u32, String> = processes.collect();
        if self.version.is_some() && now.keys().eq(self.running.keys()) {
            self.ended.insert(String::new());
        }
        let before = std::mem::replace(&mut self.running, now);
        let gone = before
            .into_iter()
            .filter(|(pid, _)| !self.running.contains_key(pid));
        self.ended.extend(gone.map(|(_, command)| command));
        let running: BTreeSet<&String> = self.running.values().collect();
        self.ended.retain(|command| !running.contains(command));
        self.version = version;
    }

    fn pause(&self, now: Instant) -> Duration {
        let times: BTreeSet<Instant> = self.started(now).map(|(at, _)| *at).collect();
        let doublings = (times.len() as u32 + self.waits).min(5);
        (FIRST_PAUSE * 2_u32.pow(doublings)).min(LONGEST_PAUSE)
    }

    fn started(&self, now: Instant) -> impl Iterator<Item = &(Instant, String)> {
        self.started
            .iter()
            .filter(move |(at, _)| now - *at < WINDOW)
    }

    fn times(&self, name: &str, now: Instant) -> usize {
        self.started(now).filter(|(_, it)| it == name).count()
    }

    async fn start_again(&mut self) {
        let now = Instant::now();
        let stages = self.stages.iter().filter(|stage| stage.ours);
        let allowed = stages.filter(|stage| self.times(&stage.name, now) < MOST);
        let mut arguments = vec!["--crashed".to_owned()];
        arguments.extend(allowed.map(|stage| stage.name.clone()));
        match request(&self.program, &self.temp_dir.join("sock"), &arguments).await {
            Ok(outcomes) => self.apply(&outcomes),
            // It quits, or is busy.
            Err(_) => self.waits += 1,
        }
    }

    fn apply(&mut self, outcomes: &Outcomes) {
        let now = Instant::now();
        self.reported.retain(|name| outcomes.contains_key(name));
        self.waits += 1;
        let mut settled = true;
        for (name, outcome) in outcomes {
            match outcome {
                RestartOutcome::Restarted => {
                    self.started.push((now, name.clone()));
                    let times = self.times(name, now);
                    say(&format!(
                        "{name} ended unexpectedly; it is started again ({times} of {MOST} times in 10 minutes)"
                    ));
                    (settled, self.waits) = (false, 0);
                }
                RestartOutcome::Starting => settled = false,
                RestartOutcome::Crashed if self.reported.insert(name.clone()) => {
                    say(&self.advice(name, now));
                }
                _ => {}
            }
        }
        if settled {
            self.ended.clear();
            self.waits = 0;
        }
    }

    /// What to do about a crashed stage that is not started again.
    fn advice(&self, name: &str, now: Instant) -> String {
        let place = self.stages.iter().position(|stage| stage.name == name);
        let what = match self.times(name, now) {
            MOST => format!("{name} was started again {MOST} times in 10 minutes, and ended again"),
            _ => format!("{name} ended unexpectedly"),
        };
        match place.map(|place| place + 1) {
            Some(key @ 1..=9) => format!("{what}; see its log, and press {key} to start it"),
            _ => format!("{what}; see its log, and start it in devcluster's console"),
        }
    }
}

#[cfg(test)]
mod tests;
