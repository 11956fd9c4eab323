//! However it is told, a stage stops in half a second and leaves nothing.

use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{bail, ensure};
use futures::FutureExt;
use rustix::process::Signal;
use serde_json::json;

use super::Named;
use super::stdout::only_messages;
use crate::harness::{Running, SOON};
use crate::scene::Scene;
use crate::verdict::Verdict;

/// What a stage has, of its own time.
const BUDGET: Duration = Duration::from_millis(500);

/// The kit may notice the end late: the best of these counts.
const ATTEMPTS: usize = 3;

pub(super) const CHECKS: &[Named] = &[
    ("shutdown.message", |s| message(s).boxed_local()),
    ("shutdown.stdin_end", |s| stdin_end(s).boxed_local()),
    ("shutdown.early", |s| early(s).boxed_local()),
    ("shutdown.sigterm", |s| sigterm(s).boxed_local()),
    ("shutdown.sigterm_twice", |s| sigterm_twice(s).boxed_local()),
    ("shutdown.sigint", |s| sigint(s).boxed_local()),
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
                running.stays(Duration::from_millis(5)).await;
                running.signal(signal);
            }
        }
        Ok(())
    }
}

/// Makes it stop, several times if need be, and checks all that an end in good order is.
async fn stops(
    scene: Scene<'_>,
    ask: Ask,
    judge: impl Fn(&Running, ExitStatus) -> Verdict,
) -> Verdict {
    let mut best = Duration::MAX;
    for _ in 0..ATTEMPTS {
        let scene = scene.another().await?;
        let mut running = scene.started().await?;
        if !matches!(ask, Ask::Early) {
            running.ready().await?;
        }
        let ports = scene.ports(&running.last("outputs")["outputs"]);
        ask.put_to(&mut running).await?;
        if matches!(ask, Ask::Early) {
            // Before that it is being loaded, and hears nothing.
            running.next("hello").await?;
        }
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
    let [best, budget] = [best, BUDGET].map(|d| d.as_secs_f32());
    bail!("it took {best:.2} s to end, at best; the budget is {budget} s")
}

/// It says why it stops, and how it ended.
fn in_good_order(running: &Running, status: ExitStatus, reasons: &[&str]) -> Verdict {
    ensure!(
        status.success(),
        "it ended with {status}{}",
        running.state()
    );
    let messages = only_messages(running)?;
    let stopping = running.last("stopping");
    let right = reasons.iter().any(|r| stopping["reason"] == *r);
    ensure!(
        right,
        "no `stopping` with the reason {reasons:?} but {stopping}"
    );
    let result = messages.last().cloned().unwrap_or_default();
    let good = result["type"] == "result" && result["ok"] == true && result["exit"] == 0;
    ensure!(
        good,
        "the last message is not a `result` that is ok but {result}"
    );
    Ok(())
}

async fn message(scene: Scene<'_>) -> Verdict {
    let judge = |r: &Running, s| in_good_order(r, s, &["shutdown"]);
    stops(scene, Ask::Message, judge).await
}

async fn stdin_end(scene: Scene<'_>) -> Verdict {
    let judge = |r: &Running, s| in_good_order(r, s, &["stdin_closed", "shutdown"]);
    stops(scene, Ask::StdinEnd, judge).await
}

async fn early(scene: Scene<'_>) -> Verdict {
    let judge = |r: &Running, s: ExitStatus| {
        ensure!(s.success(), "it ended with {s}{}", r.state());
        only_messages(r).map(drop)
    };
    stops(scene, Ask::Early, judge).await
}

/// A plugin may leave a signal to its default: it is then as dead as it has to be.
async fn by_signal(scene: Scene<'_>, signal: Signal, reason: &str) -> Verdict {
    let is_stage = scene.subject.is_stage();
    let judge = |r: &Running, s| match is_stage {
        true => in_good_order(r, s, &[reason]),
        false => only_messages(r).map(drop),
    };
    stops(scene, Ask::Signal(signal), judge).await
}

async fn sigterm(scene: Scene<'_>) -> Verdict {
    by_signal(scene, Signal::TERM, "sigterm").await
}

async fn sigint(scene: Scene<'_>) -> Verdict {
    by_signal(scene, Signal::INT, "sigint").await
}

async fn sigterm_twice(scene: Scene<'_>) -> Verdict {
    let judge = |r: &Running, _| only_messages(r).map(drop);
    stops(scene, Ask::Twice(Signal::TERM), judge).await
}
