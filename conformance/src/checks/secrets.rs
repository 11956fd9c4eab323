//! Checks that secrets do not leak.

use std::path::Path;

use super::prelude::*;

checks! {
    "secrets.nowhere" => nowhere,
}

async fn nowhere(scene: Scene<'_>) -> Verdict {
    let mut running = scene.ready().await?;
    let seen = |place: &str, bytes: &[u8]| absent(&scene, place, bytes);
    for process in scene.processes() {
        let place = format!("the command line of process {}", process.pid);
        seen(&place, process.command.as_bytes())?;
    }
    let outputs = scene.outputs_file().unwrap_or_default();
    let named = outputs["secrets"].as_object();
    let may_hold = |file: &Path| {
        let mut paths = named.into_iter().flatten().map(|(_, path)| path.as_str());
        paths.any(|path| path == file.to_str())
    };
    let in_files = |dir: &Path| {
        for file in machine::files(dir) {
            let bytes = std::fs::read(&file).unwrap_or_default();
            if !may_hold(&file) {
                seen(&format!("the file {}", file.display()), &bytes)?;
            }
        }
        Verdict::Ok(())
    };
    in_files(scene.home())?;
    running.stop().await?;
    seen("stdout", &running.stdout.bytes())?;
    seen("stderr", &running.stderr.bytes())?;
    in_files(&scene.run_dir())?;
    in_files(&scene.home().join("state"))?;
    let mut refused = scene.hosted()?;
    refused.send(&scene.with_unknown_field("start")).await?;
    let said = refused.end().await?;
    let place = "its error about an invalid config";
    seen(place, &said.stdout)?;
    seen(place, said.stderr.as_bytes())
}

fn absent(scene: &Scene, place: &str, bytes: &[u8]) -> Verdict {
    let holds = |secret: &str| machine::contains(bytes, secret.as_bytes());
    ensure!(
        !holds(&scene.canary()),
        "{place} contains a secret of its environment"
    );
    match scene.subject.secrets.iter().any(|s| holds(s)) {
        true => bail!("{place} contains a secret of its config"),
        false => Ok(()),
    }
}
