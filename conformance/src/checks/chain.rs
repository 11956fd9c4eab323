//! Checks of `--stdin chain`.

use super::prelude::*;

checks! {
    "chain.passes_on" => passes_on,
    "chain.ends_with_upstream" => ends_with_upstream,
}

const RUN: &str = "00000000000000ff";

fn from_before() -> [Value; 4] {
    [
        json!({"dcs": 1, "type": "hello", "stage": "before", "run": RUN, "kind": "conformance", "version": "1", "pid": 1}),
        json!({"dcs": 1, "type": "from_the_future", "stage": "before", "n": [1.50, "ä"]}),
        json!({"dcs": 1, "type": "outputs", "stage": "before", "run": RUN, "kind": "conformance", "gen": 1,
               "outputs": {"answer": 42}}),
        json!({"dcs": 1, "type": "ready", "stage": "before", "run": RUN, "gen": 1}),
    ]
}

async fn in_chain(scene: &Scene<'_>) -> Result<Running> {
    let command = scene.configured("run", &["--stdin", "chain", "--events", "all"])?;
    let mut running = scene.spawn_hosted(command)?;
    running.stays(SOON / 10, "it does not wait").await?;
    if let Some(message) = running.messages().first() {
        bail!("it writes a message before its upstream does: {message}");
    }
    for message in from_before() {
        running.send(&message).await?;
    }
    while running.ready().await?["stage"] != INSTANCE {}
    Ok(running)
}

async fn passes_on(scene: Scene<'_>) -> Verdict {
    let mut running = in_chain(&scene).await?;
    for sent in from_before() {
        let passed = || running.messages().contains(&sent).then_some(());
        let passed = running.eventually(SOON, passed).await;
        passed.with_context(|| format!("it does not pass on {sent}"))?;
    }
    let first = running.messages().swap_remove(0);
    let right = first == from_before()[0];
    ensure!(
        right,
        "the first line is not the `hello` of its upstream but {first}"
    );
    running.end_by(Signal::TERM).await
}

async fn ends_with_upstream(scene: Scene<'_>) -> Verdict {
    let mut running = in_chain(&scene).await?;
    running.close_stdin();
    running.end().await?.exits(4, "the upstream stage ended")
}
