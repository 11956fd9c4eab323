//! In a pipe: `--stdin chain`.

use futures::FutureExt;
use serde_json::{Value, json};

use crate::running::{Running, Streams};
use crate::scene::{SOON, Scene, eventually};
use crate::subject::{INSTANCE, Subject};
use crate::verdict::{Finding, Verdict, demand, failed};
use crate::{Check, Level};

const SECTION: &str = "in-a-pipe";

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "chain.passes_on",
        level: Level::Stage,
        title: "in a pipe every line from before is passed on, the hello before its own",
        section: SECTION,
        run: |s| passes_on(s).boxed_local(),
    },
    Check {
        id: "chain.ends_with_upstream",
        level: Level::Stage,
        title: "it ends with exit 4 when the stage before it ends",
        section: SECTION,
        run: |s| ends_with_upstream(s).boxed_local(),
    },
];

const RUN: &str = "00000000000000ff";

fn from_before() -> [Value; 4] {
    let said = |kind: &str| json!({"dcs": 1, "type": kind, "stage": "before", "run": RUN});
    let mut hello = said("hello");
    hello["kind"] = json!("conformance");
    hello["version"] = json!("1");
    hello["pid"] = json!(1);
    let mut outputs = said("outputs");
    outputs["kind"] = json!("conformance");
    outputs["gen"] = json!(1);
    outputs["outputs"] = json!({"answer": 42});
    let mut ready = said("ready");
    ready["gen"] = json!(1);
    let future = json!({"dcs": 1, "type": "from_the_future", "stage": "before", "n": [1.50, "ä"]});
    [hello, future, outputs, ready]
}

async fn in_chain(scene: &Scene<'_>) -> Result<Running, Finding> {
    let command = scene.listed_command(&["--stdin", "chain", "--events", "all"])?;
    let mut running = Running::spawn(scene, command, Streams::default())?;
    let first = running.until_within(SOON / 10, "a message", |_| true).await;
    if let Ok(message) = first {
        return failed(format!(
            "it speaks before the stage before it does: {message}"
        ));
    }
    for message in from_before() {
        running.tell(&message).await?;
    }
    running
        .until("its own `ready`", |m| {
            m["type"] == "ready" && m["stage"] == INSTANCE
        })
        .await?;
    Ok(running)
}

async fn passes_on(subject: &Subject) -> Verdict {
    let scene = Scene::new(subject)?;
    let mut running = in_chain(&scene).await?;
    for sent in from_before() {
        let passed = || running.messages().contains(&sent).then_some(());
        if eventually(SOON, passed).await.is_none() {
            return failed(format!("it does not pass on {sent}"));
        }
    }
    let first = running.messages().swap_remove(0);
    demand(first == from_before()[0], || {
        format!("the first line is not the `hello` from before but {first}")
    })?;
    running.signal(rustix::process::Signal::TERM);
    running.ended(SOON).await.map(drop)
}

async fn ends_with_upstream(subject: &Subject) -> Verdict {
    let scene = Scene::new(subject)?;
    let mut running = in_chain(&scene).await?;
    running.close_stdin();
    let (status, _) = running.ended(SOON).await?;
    demand(status.code() == Some(4), || {
        format!(
            "it ended with {status}, and this is exit code 4{}",
            running.state()
        )
    })
}
