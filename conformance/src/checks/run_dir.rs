//! The run directory is for us alone, and nothing in it breaks a stage.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use futures::FutureExt;

use crate::running::{Input, Running, Streams};
use crate::scene::Scene;
use crate::subject::{INSTANCE, Subject};
use crate::verdict::{Verdict, demand};
use crate::world;
use crate::{Check, Level};

const SECTION: &str = "the-run-directory";

/// How much memory a stage may have in the face of any run directory, beyond what it has otherwise, in KiB.
const MEMORY: u64 = 8 << 10;

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "run_dir.private",
        level: Level::Stage,
        title: "directories are made with mode 0700, files with 0600",
        section: SECTION,
        run: |s| private(s).boxed_local(),
    },
    Check {
        id: "run_dir.refused",
        level: Level::Stage,
        title: "a run directory that others may write to, or that is a link, is refused",
        section: SECTION,
        run: |s| refused(s).boxed_local(),
    },
    Check {
        id: "run_dir.garbage",
        level: Level::Stage,
        title: "garbage, huge files and FIFOs in the run directory break nothing",
        section: "limits",
        run: |s| garbage(s).boxed_local(),
    },
];

type Spoil = fn(&Path) -> std::io::Result<()>;

async fn private(subject: &Subject) -> Verdict {
    let scene = Scene::new(subject)?;
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
    demand(mode == expected, || {
        format!(
            "{} has mode {mode:o}, and has to have {expected:o}",
            path.display()
        )
    })
}

async fn refused(subject: &Subject) -> Verdict {
    let ways: [(&str, Spoil); 2] = [
        ("that others may write to", |dir| {
            std::fs::set_permissions(dir, PermissionsExt::from_mode(0o777))
        }),
        ("that is a link", |dir| {
            let real = dir.with_file_name("real");
            std::fs::rename(dir, &real)?;
            std::os::unix::fs::symlink(real, dir)
        }),
    ];
    for (what, spoil) in ways {
        let scene = Scene::new(subject)?;
        spoil(&scene.run_dir())?;
        let mut running = scene.started().await?;
        let said = running
            .until("the end", |m| m["type"] == "ready" || m["type"] == "result")
            .await?;
        demand(said["type"] == "result", || {
            format!("it works in a run directory {what}")
        })?;
        let (status, _) = running.ended(subject.patience).await?;
        demand(!status.success() && status.code().is_some(), || {
            format!("a run directory {what}: {status}")
        })?;
    }
    Ok(())
}

async fn garbage(subject: &Subject) -> Verdict {
    let usual = peak(subject, |_| Ok(())).await?;
    let fills: [(&str, Spoil); 5] = [
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
            let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
            Ok(rustix::fs::mknodat(
                rustix::fs::CWD,
                file,
                rustix::fs::FileType::Fifo,
                mode,
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
            // A FIFO in the place of the outputs is somebody's trap: it may be refused, if that is said.
            let place = name.replace("{}", INSTANCE);
            let peak = peak(subject, |dir| fill(&dir.join(&place)))
                .await
                .map_err(|e| at(e, what, &place))?;
            if let (Some(peak), Some(usual)) = (peak, usual) {
                let grown = peak.saturating_sub(usual);
                demand(grown <= MEMORY, || {
                    format!("{what} in {place} made it use {grown} KiB more")
                })?;
            }
        }
    }
    Ok(())
}

fn at(finding: crate::verdict::Finding, what: &str, place: &str) -> crate::verdict::Finding {
    use crate::verdict::Finding;
    match finding {
        Finding::Failed(why) => Finding::Failed(format!("{what} in {place}: {why}")),
        other => other,
    }
}

/// Runs it to its end and returns the most memory that it had. It becomes ready, or says why not; it never hangs.
async fn peak(
    subject: &Subject,
    spoil: impl Fn(&Path) -> std::io::Result<()>,
) -> Result<Option<u64>, crate::verdict::Finding> {
    let scene = Scene::new(subject)?;
    for dir in ["outputs", "status"] {
        use std::os::unix::fs::DirBuilderExt;
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(scene.run_dir().join(dir))?;
    }
    spoil(&scene.run_dir())?;
    let command = scene.listed_command(&["--events", "all"])?;
    let mut running = Running::spawn(
        &scene,
        command,
        Streams {
            stdin: Input::Null,
            closed: None,
        },
    )?;
    let said = running
        .until("`ready` or `result`", |m| {
            m["type"] == "ready" || m["type"] == "result"
        })
        .await?;
    let peak = world::peak_memory(running.pid());
    if said["type"] == "ready" {
        let status = running.stop().await?;
        demand(status.success(), || format!("{status}{}", running.state()))?;
    }
    Ok(peak)
}
