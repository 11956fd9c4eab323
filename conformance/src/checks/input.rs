//! Checks that no input on stdin breaks a stage.

use super::prelude::*;

/// How much more memory a stage may use for its input, in KiB.
const MEMORY: u64 = 4 << 10;

const UNKNOWN: &str = r#"{"dcs":1,"type":"unknown"}"#;

checks! {
    "input.malformed" => malformed,
    "input.oversized" => oversized,
    "input.interleaved" => interleaved,
    "input.truncated" => truncated; WithoutReady,
    "input.memory" => memory,
}

/// Checks that it becomes ready and shuts down after this input.
async fn works_after(scene: Scene<'_>, noise: &[u8]) -> Verdict {
    let mut running = scene.hosted()?;
    running.next("hello").await?;
    running.write(noise).await?;
    running.send(&scene.start()).await?;
    running.ready().await?;
    running.write(noise).await?;
    let ended = running.stop().await?;
    only_messages(&running)?;
    ended.exits(0, "asked to stop")
}

async fn malformed(scene: Scene<'_>) -> Verdict {
    let deep = format!("{}\n", "[".repeat(50_000));
    let noises: [&[u8]; 4] = [
        b"\n\nhello\n{\n[]\n7\nnull\n\"dcs\"\n{}\n",
        b"{\"type\":\"start\"}\n{\"dcs\":1}\n{\"dcs\":1,\"type\":7}\n{\"dcs\":1,\"type\":\"start\",\"config\":7}\n",
        b"\xff\xfe\x00\x01\n{\"dcs\":1,\"type\":\"sta\xffrt\"}\n{\"dcs\":1,\"type\":\"\\ud800\"}\n",
        deep.as_bytes(),
    ];
    for noise in noises {
        let works = works_after(scene.another().await?, noise).await;
        works.with_context(|| format!("after {}", shown(noise)))?;
    }
    Ok(())
}

async fn oversized(scene: Scene<'_>) -> Verdict {
    let noise = format!("{}\n", "x".repeat(1 << 20));
    // A valid line except for its length.
    let pad = "x".repeat(70_000);
    let shutdown = format!("{{\"dcs\":1,\"type\":\"shutdown\",\"pad\":\"{pad}\"}}\n");
    for noise in [noise, shutdown] {
        let works = works_after(scene.another().await?, noise.as_bytes()).await;
        works.with_context(|| format!("after {}", shown(noise.as_bytes())))?;
    }
    Ok(())
}

async fn interleaved(scene: Scene<'_>) -> Verdict {
    let mut running = scene.hosted()?;
    running.next("hello").await?;
    let start = format!("{}\n", scene.start());
    for piece in start.as_bytes().chunks(start.len().div_ceil(5)) {
        running.write(piece).await?;
        running.has_read().await?;
    }
    running.ready().await?;
    let two = format!("{UNKNOWN}\n{{\"dcs\":1,\"type\":\"shutdown\"}}\n");
    running.write(two.as_bytes()).await?;
    running.end().await?.exits(0, "asked to stop")
}

async fn truncated(scene: Scene<'_>) -> Verdict {
    let start = scene.start().to_string();
    // The last one lacks only its newline.
    for length in [1, start.len() / 2, start.len() - 1, start.len()] {
        let scene = scene.another().await?;
        let mut running = scene.hosted()?;
        running.next("hello").await?;
        running.write(&start.as_bytes()[..length]).await?;
        running.close_stdin();
        let ended = running.end().await?;
        for message in only_messages(&running)? {
            if message["type"] == "ready" || message["type"] == "outputs" {
                let whole = start.len() + 1;
                bail!("it started with {length} of {whole} bytes of a `start`, without a newline");
            }
        }
        ended.exits_somehow("after an unfinished line")?;
    }
    Ok(())
}

async fn memory(scene: Scene<'_>) -> Verdict {
    let mut running = scene.hosted()?;
    running.next("hello").await?;
    let Some(before) = machine::peak_memory(running.pid()) else {
        let why = "this system does not report the peak memory of a process";
        bail!(skipped(why, "check it on Linux"));
    };
    let piece = vec![b'x'; 1 << 20];
    for _ in 0..32 {
        running.write(&piece).await?;
    }
    for _ in 0..2000 {
        let nested = b"{\"dcs\":1,\"type\":\"unknown\",\"n\":[[[[]]]]}\n";
        running.write(nested).await?;
    }
    running.write(b"\n").await?;
    // All input except the content of a pipe is read now. The stage uses memory for its work only after this.
    let grown = machine::peak_memory(running.pid()).map_or(0, |peak| peak.saturating_sub(before));
    ensure!(
        grown <= MEMORY,
        "it used {grown} KiB more for a line of 32 MiB"
    );
    running.send(&scene.start()).await?;
    running.ready().await?;
    running.stop().await.map(drop)
}
