//! Checks of `ready`.

use protocol::message::{Message, encode};

use super::prelude::*;
use crate::harness::machine::contains;

/// The longest ready line.
const LONGEST: usize = 240;

/// The chunk size of devcluster.
const CHUNK: usize = 4096;

const READY: &[u8] = br#""type":"ready""#;

/// The check that most other checks require.
pub(crate) const REACHED: &str = "ready.reached";

checks! {
    REACHED => reached; Alone,
    "ready.twice" => twice,
    "ready.events" => events,
}

async fn reached(scene: Scene<'_>) -> Verdict {
    let mut hosted = scene.ready().await?;
    hosted.stop().await?;
    if scene.subject.is_stage() {
        let scene = scene.another().await?;
        let mut listed = scene.listed()?;
        listed.ready().await.context("listed in a file")?;
        listed.stop().await?;
    }
    Ok(())
}

async fn twice(scene: Scene<'_>) -> Verdict {
    let mut running = scene.listed()?;
    let ready = running.ready().await?;
    running.stop().await?;
    let mut writes = running.stdout.writes().into_iter();
    let write = writes
        .find(|w| contains(w, READY))
        .context("no write contains `ready`")?;
    let lines: Vec<&[u8]> = write.split_inclusive(|b| *b == b'\n').collect();
    let equal = lines.len() == 2 && lines[0] == lines[1];
    ensure!(
        equal,
        "`ready` is not one write of two equal lines: {}",
        shown(&write)
    );
    let line = lines[0].trim_ascii_end();
    let length = lines[0].len();
    ensure!(
        length <= LONGEST,
        "the line has {length} bytes, the limit is {LONGEST}"
    );
    let expected = encode(&Message::Ready {
        stage: INSTANCE.into(),
        run: ready["run"].as_str().unwrap_or_default().into(),
        generation: ready["gen"].as_u64().unwrap_or_default(),
    })?;
    let start = expected.trim_ascii_end().strip_suffix(b"}");
    ensure!(
        start.is_some_and(|start| line.starts_with(start)),
        "its keys are not in the order of the specification: {} instead of {}",
        shown(line),
        shown(&expected)
    );
    for offset in 0..CHUNK {
        let stream = [vec![b'x'; offset], write.clone()].concat();
        let seen = stream.chunks(CHUNK).any(|chunk| contains(chunk, line));
        ensure!(
            seen,
            "after {offset} other bytes, a reader of {CHUNK}-byte chunks sees no whole line"
        );
    }
    Ok(())
}

async fn events(scene: Scene<'_>) -> Verdict {
    for which in ["ready", "none"] {
        let scene = scene.another().await?;
        let mut running = scene.spawn(scene.configured("run", &["--events", which])?)?;
        let wait = scene.call("wait", &[]).await?;
        wait.exits(0, "`wait`")?;
        running.stop().await?;
        let stdout = running.stdout.bytes();
        let right = match which {
            "none" => stdout.is_empty(),
            _ => {
                let lines = running.stdout.lines();
                !lines.is_empty() && lines.iter().all(|line| contains(line, READY))
            }
        };
        ensure!(right, "--events {which}: {}", shown(&stdout));
    }
    Ok(())
}
