//! However it is told, a stage stops in half a second and leaves nothing.

use std::process::ExitStatus;
use std::time::Duration;

use futures::FutureExt;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::running::Running;
use crate::scene::{SOON, Scene};
use crate::subject::Subject;
use crate::verdict::{Verdict, demand, failed};
use crate::{Check, Level};

use super::stdout::only_messages;

/// What a stage has.
const BUDGET: Duration = Duration::from_millis(500);

/// The machine may be busy with something else: the best of these counts.
const ATTEMPTS: usize = 3;

const SECTION: &str = "stopping";

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "shutdown.message",
        level: Level::Plugin,
        title: "shutdown ends it within half a second, with exit 0, and nothing is left",
        section: SECTION,
        run: |s| message(s).boxed_local(),
    },
    Check {
        id: "shutdown.stdin_end",
        level: Level::Plugin,
        title: "so does the end of stdin",
        section: SECTION,
        run: |s| stdin_end(s).boxed_local(),
    },
    Check {
        id: "shutdown.early",
        level: Level::Plugin,
        title: "so does a shutdown that comes right after start",
        section: SECTION,
        run: |s| early(s).boxed_local(),
    },
    Check {
        id: "shutdown.sigterm",
        level: Level::Plugin,
        title: "SIGTERM ends it within half a second and nothing is left; a full stage exits with 0",
        section: SECTION,
        run: |s| sigterm(s).boxed_local(),
    },
    Check {
        id: "shutdown.sigterm_twice",
        level: Level::Plugin,
        title: "a second SIGTERM changes nothing of that",
        section: SECTION,
        run: |s| sigterm_twice(s).boxed_local(),
    },
    Check {
        id: "shutdown.sigint",
        level: Level::Stage,
        title: "SIGINT is as good as SIGTERM",
        section: SECTION,
        run: |s| sigint(s).boxed_local(),
    },
];

/// How it is told.
#[derive(Clone, Copy)]
enum Ask {
    Message,
    StdinEnd,
    /// A message right after `start`.
    Early,
    Signal(Signal),
    Twice(Signal),
}

impl Ask {
    async fn put_to(self, running: &mut Running) -> Verdict {
        match self {
            Ask::Message | Ask::Early => {
                running.tell(&json!({"dcs": 1, "type": "shutdown"})).await?
            }
            Ask::StdinEnd => running.close_stdin(),
            Ask::Signal(signal) => running.signal(signal),
            Ask::Twice(signal) => {
                running.signal(signal);
                sleep(Duration::from_millis(5)).await;
                running.signal(signal);
            }
        }
        Ok(())
    }
}

/// Makes it stop, several times if need be, and checks all that an end in good order is.
async fn stops(
    subject: &Subject,
    ask: Ask,
    judge: impl Fn(&Running, ExitStatus) -> Verdict,
) -> Verdict {
    let mut best = Duration::MAX;
    for _ in 0..ATTEMPTS {
        let scene = Scene::new(subject)?;
        let mut running = scene.started().await?;
        if !matches!(ask, Ask::Early) {
            running.ready().await?;
        }
        let outputs = running
            .last("outputs")
            .map_or(Value::Null, |m| m["outputs"].clone());
        let ports = scene.ports(&outputs);
        ask.put_to(&mut running).await?;
        let (status, took) = running.ended(SOON).await?;
        running.heard_out().await?;
        judge(&running, status)?;
        scene.no_process_is_left().await?;
        scene.no_port_is_left(&ports).await?;
        best = best.min(took);
        if best <= BUDGET {
            return Ok(());
        }
    }
    failed(format!(
        "it took {} s to end, at best; the budget is {} s",
        best.as_secs_f32(),
        BUDGET.as_secs_f32()
    ))
}

/// It says why it stops, and how it ended.
fn in_good_order(running: &Running, status: ExitStatus, reasons: &[&str]) -> Verdict {
    demand(status.success(), || {
        format!("it ended with {status}{}", running.state())
    })?;
    let messages = only_messages(&running.stdout)?;
    let stopping = messages
        .iter()
        .find(|m| m["type"] == "stopping")
        .cloned()
        .unwrap_or_default();
    demand(reasons.iter().any(|r| stopping["reason"] == *r), || {
        format!("no `stopping` with the reason {reasons:?} but {stopping}")
    })?;
    let result = messages.last().cloned().unwrap_or_default();
    let good = result["type"] == "result" && result["ok"] == true && result["exit"] == 0;
    demand(good, || {
        format!("the last message is not a `result` that is ok but {result}")
    })
}

async fn message(subject: &Subject) -> Verdict {
    stops(subject, Ask::Message, |r, s| {
        in_good_order(r, s, &["shutdown"])
    })
    .await
}

async fn stdin_end(subject: &Subject) -> Verdict {
    stops(subject, Ask::StdinEnd, |r, s| {
        in_good_order(r, s, &["stdin_closed", "shutdown"])
    })
    .await
}

async fn early(subject: &Subject) -> Verdict {
    stops(subject, Ask::Early, |r, s| {
        demand(s.success(), || format!("it ended with {s}{}", r.state()))?;
        only_messages(&r.stdout).map(drop)
    })
    .await
}

/// A plugin may leave a signal to its default: it is then as dead as it has to be.
fn by_signal(subject: &Subject, running: &Running, status: ExitStatus, reason: &str) -> Verdict {
    match subject.is_stage() {
        true => in_good_order(running, status, &[reason]),
        false => only_messages(&running.stdout).map(drop),
    }
}

async fn sigterm(subject: &Subject) -> Verdict {
    stops(subject, Ask::Signal(Signal::TERM), |r, s| {
        by_signal(subject, r, s, "sigterm")
    })
    .await
}

async fn sigint(subject: &Subject) -> Verdict {
    stops(subject, Ask::Signal(Signal::INT), |r, s| {
        by_signal(subject, r, s, "sigint")
    })
    .await
}

async fn sigterm_twice(subject: &Subject) -> Verdict {
    stops(subject, Ask::Twice(Signal::TERM), |r, _| {
        only_messages(&r.stdout).map(drop)
    })
    .await
}
