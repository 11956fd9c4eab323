//! stdout and stderr: who holds them, and what when they are closed.

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
        ensure!(!(is_other && holds), "{process} holds its stdout or stderr");
    }
    running.stop().await.map(drop)
}

async fn without(scene: &Scene<'_>, fd: i32) -> Result<Running> {
    let mut command = scene.verb("run", &["--stdin", "control"]);
    close_in_child(&mut command, fd);
    let mut running = scene.spawn_hosted(command)?;
    running.tell(&scene.start()).await?;
    Ok(running)
}

async fn stdout_closed(scene: Scene<'_>) -> Verdict {
    let mut running = without(&scene, 1).await?;
    // It may say that it cannot work like this, or work.
    if running.ended(Duration::from_secs(1)).await.is_err() {
        running.stop().await?;
    }
    for file in files(scene.home()) {
        let text = std::fs::read(&file).unwrap_or_default();
        let file = file.display();
        ensure!(
            !contains(&text, br#""type":"hello""#),
            "its messages went into {file}: a file that it opened got the number of stdout"
        );
    }
    scene.no_process_is_left().await
}

async fn stderr_closed(scene: Scene<'_>) -> Verdict {
    let mut running = without(&scene, 2).await?;
    running.ready().await?;
    running.write(b"not a message\n").await?;
    running.stop().await?.exits(0, "told to stop")?;
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
        ended.with_context(|| format!("nobody reads its {name} any more"))?;
        scene.no_process_is_left().await?;
    }
    Ok(())
}

#[allow(
    unsafe_code,
    reason = "a descriptor of the child alone is closed between fork and exec"
)]
pub(super) fn close_in_child(command: &mut Command, fd: i32) {
    let close = move || {
        // SAFETY: the child does not use it between here and exec; close is async-signal-safe.
        unsafe { rustix::io::close(fd) };
        Ok(())
    };
    // SAFETY: one plain system call.
    unsafe {
        command.pre_exec(close);
    }
}
