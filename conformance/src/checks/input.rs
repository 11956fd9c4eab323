//! Nothing that comes in on stdin breaks a stage.

use std::time::Duration;

use futures::FutureExt;
use serde_json::Value;
use tokio::time::sleep;

use crate::scene::{SOON, Scene};
use crate::subject::Subject;
use crate::verdict::{Finding, Verdict, demand, failed, shown, skipped};
use crate::world;
use crate::{Check, Level};

use super::stdout::only_messages;

const SECTION: &str = "lines";

/// How much more memory a stage may take for what it reads, in KiB.
const MEMORY: u64 = 4 << 10;

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "input.malformed",
        level: Level::Plugin,
        title: "lines that are no messages are skipped",
        section: SECTION,
        run: |s| malformed(s).boxed_local(),
    },
    Check {
        id: "input.oversized",
        level: Level::Plugin,
        title: "a line over 64 KiB is skipped and the next one is read",
        section: SECTION,
        run: |s| oversized(s).boxed_local(),
    },
    Check {
        id: "input.interleaved",
        level: Level::Plugin,
        title: "a line that comes in pieces is one line, and two in one piece are two",
        section: SECTION,
        run: |s| interleaved(s).boxed_local(),
    },
    Check {
        id: "input.truncated",
        level: Level::Plugin,
        title: "half a line before the end of stdin is not acted upon",
        section: SECTION,
        run: |s| truncated(s).boxed_local(),
    },
    Check {
        id: "input.memory",
        level: Level::Stage,
        title: "a line without an end takes no more than a few MiB",
        section: "limits",
        run: |s| memory(s).boxed_local(),
    },
];

/// It becomes ready and ends in good order in spite of this.
async fn works_after(subject: &Subject, noise: &[u8]) -> Verdict {
    let scene = Scene::new(subject)?;
    let mut running = scene.hosted()?;
    running.next("hello").await?;
    running.write(noise).await?;
    running.tell(&scene.start()).await?;
    if let Err(Finding::Failed(why)) = running.ready().await {
        return failed(format!("after {}: {why}", shown(noise)));
    }
    running.write(noise).await?;
    let status = running.stop().await?;
    only_messages(&running.stdout)?;
    demand(status.success(), || {
        format!("after {}: {status}{}", shown(noise), running.state())
    })
}

async fn malformed(subject: &Subject) -> Verdict {
    let deep = format!("{}\n", "[".repeat(50_000));
    let noises: [&[u8]; 4] = [
        b"\n\nhello\n{\n[]\n7\nnull\n\"dcs\"\n{}\n",
        b"{\"type\":\"start\"}\n{\"dcs\":1}\n{\"dcs\":1,\"type\":7}\n{\"dcs\":1,\"type\":\"start\",\"config\":7}\n",
        b"\xff\xfe\x00\x01\n{\"dcs\":1,\"type\":\"sta\xffrt\"}\n{\"dcs\":1,\"type\":\"\\ud800\"}\n",
        deep.as_bytes(),
    ];
    for noise in noises {
        works_after(subject, noise).await?;
    }
    Ok(())
}

async fn oversized(subject: &Subject) -> Verdict {
    let mut noise = vec![b'x'; 1 << 20];
    noise.push(b'\n');
    works_after(subject, &noise).await?;
    // A start that would be fine but for its length.
    let padded = format!(
        "{{\"dcs\":1,\"type\":\"shutdown\",\"pad\":\"{}\"}}\n",
        "x".repeat(70_000)
    );
    works_after(subject, padded.as_bytes()).await
}

async fn interleaved(subject: &Subject) -> Verdict {
    let scene = Scene::new(subject)?;
    let mut running = scene.hosted()?;
    running.next("hello").await?;
    let start = format!("{}\n", scene.start());
    for piece in start.as_bytes().chunks(start.len().div_ceil(5)) {
        running.write(piece).await?;
        sleep(Duration::from_millis(20)).await;
    }
    running.ready().await?;
    running
        .write(b"{\"dcs\":1,\"type\":\"unknown\"}\n{\"dcs\":1,\"type\":\"shutdown\"}\n")
        .await?;
    let (status, _) = running.ended(SOON).await?;
    demand(status.success(), || format!("{status}{}", running.state()))
}

async fn truncated(subject: &Subject) -> Verdict {
    let scene = Scene::new(subject)?;
    let start = scene.start().to_string();
    // The last one is whole but for its newline.
    for length in [1, start.len() / 2, start.len() - 1, start.len()] {
        let scene = Scene::new(subject)?;
        let mut running = scene.hosted()?;
        running.next("hello").await?;
        running.write(&start.as_bytes()[..length]).await?;
        running.close_stdin();
        let (status, _) = running.ended(SOON).await?;
        running.heard_out().await?;
        let messages = only_messages(&running.stdout)?;
        let acted = |m: &Value| m["type"] == "ready" || m["type"] == "outputs";
        demand(!messages.iter().any(acted), || {
            format!(
                "it began with a `start` of which {length} of {} bytes came, without a newline",
                start.len() + 1
            )
        })?;
        demand(status.code().is_some(), || {
            format!("{status}{}", running.state())
        })?;
    }
    Ok(())
}

async fn memory(subject: &Subject) -> Verdict {
    let scene = Scene::new(subject)?;
    let mut running = scene.hosted()?;
    running.next("hello").await?;
    let Some(before) = world::peak_memory(running.pid()) else {
        return skipped(
            "this system does not tell how much memory a process had",
            "check it on Linux",
        );
    };
    let piece = vec![b'x'; 1 << 20];
    for _ in 0..32 {
        running.write(&piece).await?;
    }
    for _ in 0..2000 {
        running
            .write(b"{\"dcs\":1,\"type\":\"unknown\",\"n\":[[[[]]]]}\n")
            .await?;
    }
    running.write(b"\n").await?;
    // What is written was read, but for what a pipe holds; what the stage needs for its work comes after.
    let grown = world::peak_memory(running.pid()).map_or(0, |peak| peak.saturating_sub(before));
    demand(grown <= MEMORY, || {
        format!("32 MiB in one line made it use {grown} KiB more")
    })?;
    running.tell(&scene.start()).await?;
    running.ready().await?;
    running.stop().await.map(drop)
}
