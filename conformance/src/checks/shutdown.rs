//! Checks of the shutdown: it takes half a second and leaves nothing.

use super::prelude::*;
use crate::harness::Output;

/// The budget, in the stage's own time.
const BUDGET: Duration = Duration::from_millis(500);

/// The time until `stopping`, if the stage sends it.
const STOPPING: Duration = Duration::from_millis(100);

/// The kit may detect the end late: the best attempt counts.
const ATTEMPTS: usize = 3;

checks! {
    "shutdown.message" => |s| stops(s, Ask::Message, in_order(&["shutdown"])); Alone,
    "shutdown.stdin_end" => |s| stops(s, Ask::StdinEnd, in_order(&["stdin_closed", "shutdown"])); Alone,
    "shutdown.early" => |s| stops(s, Ask::Early, |_, ended| ended.exits(0, "asked to stop at once")); Alone; WithoutReady,
    "shutdown.sigterm" => |s| by_signal(s, Signal::TERM, &["sigterm"]); Alone,
    "shutdown.sigterm_twice" => |s| stops(s, Ask::Twice(Signal::TERM), |_, _| Ok(())); Alone,
    "shutdown.sigint" => |s| by_signal(s, Signal::INT, &["sigint"]); Alone,
}

/// How it is asked to stop.
#[derive(Clone, Copy, PartialEq)]
enum Ask {
    Message,
    StdinEnd,
    /// `shutdown` right after `start`.
    Early,
    Signal(Signal),
    Twice(Signal),
}

impl Ask {
    async fn put_to(self, running: &mut Running) -> Verdict {
        match self {
            Ask::Message | Ask::Early => {
                running.send(&json!({"dcs": 1, "type": "shutdown"})).await?
            }
            Ask::StdinEnd => running.close_stdin(),
            Ask::Signal(signal) => running.signal(signal),
            Ask::Twice(signal) => {
                running.signal(signal);
                // The second signal must arrive while it stops; a plugin that does not send `stopping` gets it soon.
                let stops = || (running.last("stopping") != Value::Null).then_some(());
                running.eventually(STOPPING, stops).await;
                running.signal(signal);
            }
        }
        Ok(())
    }
}

/// Stops it, several times if necessary, and checks its end.
async fn stops(
    scene: Scene<'_>,
    ask: Ask,
    judge: impl Fn(&Running, &Output) -> Verdict,
) -> Verdict {
    let mut best = Duration::MAX;
    for _ in 0..ATTEMPTS {
        let scene = scene.another().await?;
        let mut running = scene.started().await?;
        if ask != Ask::Early {
            running.ready().await?;
        }
        let ports = scene.ports(&running.last("outputs")["outputs"]);
        ask.put_to(&mut running).await?;
        if ask == Ask::Early {
            // Before that, the program is still loading and ignores input.
            running.next("hello").await?;
        }
        let ended = running.end().await?;
        only_messages(&running)?;
        judge(&running, &ended)?;
        scene.no_process_is_left().await?;
        scene.no_port_is_left(&ports).await?;
        best = best.min(ended.took);
        if best <= BUDGET {
            return Ok(());
        }
    }
    let [best, budget] = [best, BUDGET].map(|d| d.as_secs_f32());
    bail!("it took at least {best:.2} s to end; the budget is {budget} s")
}

/// Checks its reason, result and exit code.
fn in_order(reasons: &'static [&str]) -> impl Fn(&Running, &Output) -> Verdict {
    move |running, ended| {
        ended.exits(0, "asked to stop")?;
        let stopping = running.last("stopping");
        let right = reasons.iter().any(|r| stopping["reason"] == *r);
        ensure!(
            right,
            "no `stopping` with the reason {reasons:?} but {stopping}"
        );
        let last = running.messages().pop().unwrap_or_default();
        let good = last["type"] == "result" && last["ok"] == true && last["exit"] == 0;
        ensure!(
            good,
            "the last message is not a `result` that is ok but {last}"
        );
        Ok(())
    }
}

/// Whether it died by the signal: a plugin may keep the default action.
async fn by_signal(scene: Scene<'_>, signal: Signal, reason: &'static [&str]) -> Verdict {
    match scene.subject.is_stage() {
        true => stops(scene, Ask::Signal(signal), in_order(reason)).await,
        false => stops(scene, Ask::Signal(signal), |_, _| Ok(())).await,
    }
}
