//! `ready` as stock devcluster needs it.

use futures::FutureExt;
use protocol::message::Message;
use protocol::message::{Ready, encode};

use crate::running::{Input, Running, Streams};
use crate::scene::Scene;
use crate::subject::{INSTANCE, Subject};
use crate::verdict::{Verdict, demand, failed, shown};
use crate::{Check, Level};

/// The longest ready line.
const LONGEST: usize = 240;

/// What devcluster reads at once.
const CHUNK: usize = 4096;

const READY: &[u8] = br#""type":"ready""#;

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "ready.twice",
        level: Level::Stage,
        title: "ready is one write of two equal lines, seen whole at every offset of a 4096-byte reader",
        section: "ready",
        run: |s| twice(s).boxed_local(),
    },
    Check {
        id: "ready.events",
        level: Level::Stage,
        title: "--events ready writes ready lines alone, --events none nothing",
        section: "flags",
        run: |s| events(s).boxed_local(),
    },
];

fn has(hay: &[u8], needle: &[u8]) -> bool {
    crate::world::contains(hay, needle)
}

async fn twice(subject: &Subject) -> Verdict {
    let scene = Scene::new(subject)?;
    let mut running = scene.listed()?;
    let ready = running.ready().await?;
    running.stop().await?;
    let Some(write) = running.stdout.writes().into_iter().find(|w| has(w, READY)) else {
        return failed("no write with a `ready` in it");
    };
    let lines: Vec<&[u8]> = write.split_inclusive(|b| *b == b'\n').collect();
    let equal = lines.len() == 2 && lines[0] == lines[1];
    demand(equal, || {
        format!("not one write of two equal lines: {}", shown(&write))
    })?;
    let line = lines[0];
    demand(line.len() <= LONGEST, || {
        format!(
            "the line has {} bytes, and {LONGEST} is the limit",
            line.len()
        )
    })?;
    let expected = Message::Ready(Ready {
        stage: INSTANCE.into(),
        run: ready["run"].as_str().unwrap_or_default().into(),
        generation: ready["gen"].as_u64().unwrap_or_default(),
    });
    let expected = encode(&expected).unwrap_or_default();
    let start = expected
        .trim_ascii_end()
        .strip_suffix(b"}")
        .unwrap_or_default();
    demand(line.starts_with(start), || {
        format!(
            "its keys are not in the order of the specification: {} instead of {}",
            shown(line),
            shown(&expected)
        )
    })?;
    for offset in 0..CHUNK {
        let mut stream = vec![b'x'; offset];
        stream.extend_from_slice(&write);
        let seen = stream
            .chunks(CHUNK)
            .any(|chunk| has(chunk, line.trim_ascii_end()));
        demand(seen, || {
            format!("after {offset} other bytes a reader of {CHUNK} at a time sees no whole line")
        })?;
    }
    Ok(())
}

async fn events(subject: &Subject) -> Verdict {
    for which in ["ready", "none"] {
        let scene = Scene::new(subject)?;
        let command = scene.listed_command(&["--events", which])?;
        let mut running = Running::spawn(
            &scene,
            command,
            Streams {
                stdin: Input::Null,
                closed: None,
            },
        )?;
        let wait = scene.call("wait", &[]).await?;
        demand(wait.code == Some(0), || format!("`wait`: {}", wait.shown()))?;
        running.stop().await?;
        let stdout = running.stdout.bytes();
        let ok = match which {
            "none" => stdout.is_empty(),
            _ => {
                has(&stdout, READY)
                    && stdout
                        .split_inclusive(|b| *b == b'\n')
                        .all(|l| has(l, READY))
            }
        };
        demand(ok, || format!("--events {which}: {}", shown(&stdout)))?;
    }
    Ok(())
}
