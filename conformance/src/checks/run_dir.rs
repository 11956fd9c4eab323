//! Checks of the run directory.

use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::prelude::*;

/// How much more memory a stage may use with any run directory, in KiB.
const MEMORY: u64 = 8 << 10;

checks! {
    "run_dir.private" => private,
    "run_dir.refused" => refused,
    "run_dir.garbage" => garbage,
}

type Sabotage = fn(&Path) -> std::io::Result<()>;

async fn private(scene: Scene<'_>) -> Verdict {
    std::fs::remove_dir(scene.run_dir())?;
    let mut running = scene.ready().await?;
    let mut dirs = vec![scene.run_dir()];
    while let Some(dir) = dirs.pop() {
        expect_mode(&dir, 0o700)?;
        for entry in std::fs::read_dir(&dir)?.flatten() {
            match entry.file_type()? {
                kind if kind.is_dir() => dirs.push(entry.path()),
                kind if kind.is_file() => expect_mode(&entry.path(), 0o600)?,
                _ => {}
            }
        }
    }
    running.stop().await.map(drop)
}

fn expect_mode(path: &Path, expected: u32) -> Verdict {
    let mode = std::fs::symlink_metadata(path)?.permissions().mode() & 0o777;
    let path = path.display();
    ensure!(
        mode == expected,
        "{path} has mode {mode:o}, and must have {expected:o}"
    );
    Ok(())
}

async fn refused(scene: Scene<'_>) -> Verdict {
    let ways: [(&str, Sabotage); 2] = [
        ("that others can write to", |dir| {
            std::fs::set_permissions(dir, PermissionsExt::from_mode(0o777))
        }),
        ("that is a link", |dir| {
            let real = dir.with_file_name("real");
            std::fs::rename(dir, &real)?;
            std::os::unix::fs::symlink(real, dir)
        }),
    ];
    for (what, spoil) in ways {
        let scene = scene.another().await?;
        spoil(&scene.run_dir())?;
        let mut running = scene.started().await?;
        let said = running.decided().await?;
        ensure!(
            said["type"] == "result",
            "it works in a run directory {what}"
        );
        let ended = running.end_within(running.patience).await?;
        ended.exits_somehow(what)?;
        ensure!(
            !ended.status.success(),
            "it succeeds in a run directory {what}"
        );
    }
    Ok(())
}

async fn garbage(scene: Scene<'_>) -> Verdict {
    let usual = peak(scene.another().await?, |_| Ok(())).await?;
    let fills: [(&str, Sabotage); 5] = [
        ("no JSON", |file| std::fs::write(file, b"\xff{not json")),
        ("nested JSON", |file| {
            std::fs::write(file, "[".repeat(100_000))
        }),
        ("4 MiB of numbers", |file| {
            std::fs::write(file, format!("[{}0]", "0,".repeat(2 << 20)))
        }),
        ("64 MiB", |file| {
            std::fs::File::create(file)?.set_len(64 << 20)
        }),
        ("a FIFO", |file| {
            Ok(mknodat(
                CWD,
                file,
                FileType::Fifo,
                Mode::RUSR | Mode::WUSR,
                0,
            )?)
        }),
    ];
    for (what, fill) in fills {
        for name in [
            "{}.lock",
            "outputs/{}.json",
            "outputs/.{}.prev",
            "status/{}.json",
            "outputs/other.json",
            "status/other.json",
        ] {
            // A FIFO in the place of the outputs may be refused with an error.
            let place = name.replace("{}", INSTANCE);
            let peak = peak(scene.another().await?, |dir| fill(&dir.join(&place))).await;
            let peak = peak.with_context(|| format!("{what} in {place}"))?;
            if let (Some(peak), Some(usual)) = (peak, usual) {
                let grown = peak.saturating_sub(usual);
                ensure!(
                    grown <= MEMORY,
                    "it used {grown} KiB more for {what} in {place}"
                );
            }
        }
    }
    Ok(())
}

/// Runs it until it ends and returns its peak memory. It must become ready or report why not, and must not hang.
async fn peak(
    scene: Scene<'_>,
    spoil: impl Fn(&Path) -> std::io::Result<()>,
) -> Result<Option<u64>> {
    for dir in ["outputs", "status"] {
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(scene.run_dir().join(dir))?;
    }
    spoil(&scene.run_dir())?;
    let mut running = scene.listed()?;
    let said = running.decided().await?;
    let peak = machine::peak_memory(running.pid());
    if said["type"] == "ready" {
        running.stop().await?.exits(0, "asked to stop")?;
    }
    Ok(peak)
}
