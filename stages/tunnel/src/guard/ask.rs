//! How `check` and `wait` learn the state: whoever connects gets the result of an examination.

use std::sync::Arc;

use futures::future::join_all;
use protocol::Context;
use protocol::rundir::RunDir;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::files::ask_path;
use super::{Guard, PAUSE, State};
use crate::Tunnel;

/// More than all ports of a tunnel need.
const ANSWER: u64 = 1 << 20;

/// The state of one guarded port.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) port: u16,
    /// `absent`, `unexamined`, `open` or `guarded`.
    pub(crate) state: String,
    /// The state for people.
    pub(crate) message: String,
}

impl Report {
    pub(crate) fn is_open(&self) -> bool {
        self.state == State::Open(Vec::new()).name()
    }

    /// Whether a master was there and answered.
    fn is_settled(&self) -> bool {
        self.is_open() || self.state == State::Guarded.name()
    }
}

/// Answers until dropped.
pub(super) async fn answer(listener: UnixListener, guards: Vec<Arc<Guard>>) {
    let mut askers = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((asker, _)) => drop(askers.spawn(report(asker, guards.clone()))),
                Err(_) => tokio::task::yield_now().await,
            },
            Some(_) = askers.join_next() => {}
        }
    }
}

async fn report(mut asker: UnixStream, guards: Vec<Arc<Guard>>) {
    let reports = guards.iter().map(async |guard| {
        let state = guard.examined_now().await;
        Report {
            port: guard.port,
            state: state.name().to_owned(),
            message: state.describe(guard.port),
        }
    });
    let reports = join_all(reports).await;
    if let Ok(text) = serde_json::to_vec(&reports) {
        // An asker that has gone gets no answer.
        drop(asker.write_all(&text).await);
    }
}

/// Lets the guards of an instance examine their ports. `None` if it has none, or does not run.
pub(crate) async fn ask(run_dir: &RunDir, instance: &str) -> Option<Vec<Report>> {
    let path = ask_path(run_dir, instance);
    let path = std::fs::read_link(&path).unwrap_or(path);
    let stream = UnixStream::connect(path).await.ok()?;
    let mut text = Vec::new();
    stream.take(ANSWER).read_to_end(&mut text).await.ok()?;
    serde_json::from_slice(&text).ok()
}

/// Lets the guards of a running instance examine their ports until a master has answered at each.
pub(crate) async fn settle(cx: &Context<Tunnel>) {
    while cx.run_dir.holder(&cx.instance).is_some() {
        let reports = ask(&cx.run_dir, &cx.instance).await.unwrap_or_default();
        if !reports.is_empty() && reports.iter().all(Report::is_settled) {
            for report in reports {
                cx.say(&format!("guard: {}", report.message));
            }
            return;
        }
        sleep(PAUSE).await;
    }
}
