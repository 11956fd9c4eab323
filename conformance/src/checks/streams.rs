//! Checks of stdout and stderr: which processes keep them open, and what happens when they are closed.

use super::prelude::*;
use crate::harness::machine::{contains, descriptors, files};

checks! {
    "streams.descendants" => descendants,
    "streams.stdout_closed" => stdout_closed; WithoutReady,
    "streams.stderr_closed" => stderr_closed,
    "streams.host_gone" => host_gone,
    "streams.reader_gone" => reader_gone,
}

async fn descendants(scene: Scene<'_>) -> Verdict {
    let mut running = scene.ready().await?;
    for process in scene.processes() {
        let held = descriptors(process.pid);
        let holds = running.pipes.iter().any(|pipe| held.contains(pipe));
        let is_other = process.pid != running.pid();
        ensure!(
            !(is_other && holds),
            "{process} keeps its stdout or stderr open"
        );
    }
    running.stop().await.map(drop)
}

async fn without(scene: &Scene<'_>, fd: i32) -> Result<Running> {
    let mut command = scene.verb("run", &["--stdin", "control"]);
    close_in_child(&mut command, fd);
    let mut running = scene.spawn_hosted(command)?;
    running.send(&scene.start()).await?;
    Ok(running)
}

async fn stdout_closed(scene: Scene<'_>) -> Verdict {
    let mut running = without(&scene, 1).await?;
    // It may report an error, or work.
    if running.ended(Duration::from_secs(1)).await.is_err() {
        running.stop().await?;
    }
    for file in files(scene.home()) {
        let text = std::fs::read(&file).unwrap_or_default();
        let file = file.display();
        ensure!(
            !contains(&text, br#""type":"hello""#),
            "its messages are in {file}: a file that it opened has the descriptor of stdout"
        );
    }
    scene.no_process_is_left().await
}

async fn stderr_closed(scene: Scene<'_>) -> Verdict {
    let mut running = without(&scene, 2).await?;
    running.ready().await?;
    running.write(b"not a message\n").await?;
    running.stop().await?.exits(0, "asked to stop")?;
    only_messages(&running)?;
    scene.no_process_is_left().await
}

async fn host_gone(scene: Scene<'_>) -> Verdict {
    let mut running = scene.ready().await?;
    running.stdout.close();
    running.stderr.close();
    running.close_stdin();
    running.ended(SOON).await?;
    scene.no_process_is_left().await
}

async fn reader_gone(scene: Scene<'_>) -> Verdict {
    for name in ["stdout", "stderr"] {
        let scene = scene.another().await?;
        let mut running = scene.listed()?;
        running.ready().await?;
        match name {
            "stdout" => running.stdout.close(),
            _ => running.stderr.close(),
        }
        let ended = running.ended(SOON).await;
        ended.with_context(|| format!("the reader of its {name} is gone"))?;
        scene.no_process_is_left().await?;
    }
    Ok(())
}

#[allow(
    unsafe_code,
    reason = "a descriptor of only the child is closed between fork and exec"
)]
pub(super) fn close_in_child(command: &mut Command, fd: i32) {
    let close = move || {
        // SAFETY: the child does not use it before exec; close is async-signal-safe.
        unsafe { rustix::io::close(fd) };
        Ok(())
    };
    // SAFETY: one plain system call.
    unsafe {
        command.pre_exec(close);
    }
}
