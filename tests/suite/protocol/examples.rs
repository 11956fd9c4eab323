//! Runs the examples of PROTOCOL.md besides JSON: the plugin in Python, the commands, the YAML.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use support::devcluster::python_program;
use support::{Home, bin, leaks};
use tokio::process::Command;

/// The time limit of a run of the kit on a busy machine.
const PATIENCE: Duration = Duration::from_secs(180);

fn blocks(language: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../PROTOCOL.md");
    let text = std::fs::read_to_string(path).expect("no PROTOCOL.md");
    let fence = format!("```{language}\n");
    let blocks = text.split(&fence).skip(1);
    blocks
        .map(|b| b.split("```").next().unwrap_or_default().to_owned())
        .collect()
}

/// A directory with the plugin of the specification.
fn with_plugin() -> Home {
    let home = Home::new();
    let python = blocks("python");
    assert_eq!(python.len(), 1);
    let path = home.path().join("vpn-stage.py");
    std::fs::write(&path, &python[0]).expect("cannot write");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("cannot chmod");
    home
}

async fn succeeds(home: &Home, mut command: Command) -> String {
    let programs = bin("devcluster-remote");
    let programs = programs.parent().expect("a directory").display();
    command
        .env(
            "PATH",
            format!("{programs}:{}", std::env::var("PATH").expect("a PATH")),
        )
        .env("DEVCLUSTER", python_program("DEVCLUSTER", "devcluster"))
        .current_dir(home.path())
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = tokio::time::timeout(PATIENCE, command.output())
        .await
        .expect("no end")
        .expect("no start");
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success(), "{command:?}: {said}");
    said
}

#[tokio::test]
async fn every_command_of_the_specification_works_on_its_plugin() {
    let home = with_plugin();
    let commands = blocks("sh");
    assert_eq!(commands.len(), 2, "{commands:?}");
    for line in commands.iter().flat_map(|b| b.lines()) {
        let mut command = home.command(Path::new("sh"));
        command.args(["-c", line]);
        let said = succeeds(&home, command).await;
        if line.contains("conformance") {
            assert!(said.contains("0 failed, 0 skipped"), "{said}");
        }
    }
    leaks::gone("processes", || leaks::processes(&home.mark())).await;
}

#[tokio::test]
async fn every_file_of_the_specification_is_one_that_devcluster_reads() {
    for yaml in blocks("yaml") {
        let home = with_plugin();
        std::fs::write(home.path().join("devcluster.yaml"), yaml).expect("cannot write");
        let mut compile = home.command(&bin("devcluster-remote"));
        compile.args([
            "compile",
            "--with-plugins",
            "-c",
            "devcluster.yaml",
            "-o",
            "compiled.yaml",
        ]);
        succeeds(&home, compile).await;
        let mut read = home.command(&python_program("DEVCLUSTER_PYTHON", "python"));
        let script =
            "import yaml, devcluster; devcluster.Config(yaml.safe_load(open('compiled.yaml')))";
        read.args(["-c", script]);
        succeeds(&home, read).await;
    }
}
