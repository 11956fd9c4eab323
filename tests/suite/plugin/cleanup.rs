//! The host removes what a dead plugin left.

use std::path::{Path, PathBuf};

use rustix::process::Signal;
use serde_json::json;
use support::plugin::{READY, exit_code, host, run, run_with, script};
use support::{Home, StageClient, bin, leaks};

/// Kills a host whose plugin is `body`, so that its ledger stays open, and returns the plugin.
async fn left_by(home: &Home, body: &str) -> PathBuf {
    let path = script(home, body);
    let mut command = run_with(home, Path::new("./plugin.sh"), &json!({}));
    command.current_dir(home.path());
    let mut stage = StageClient::start(command);
    stage.wait_for("ready").await;
    stage.signal(Signal::KILL);
    stage.wait().await;
    leaks::gone("processes", || leaks::processes(&home.mark())).await;
    path
}

fn leaving(describe: &str, cleanup: &str) -> String {
    format!(
        "case $1 in describe) {describe};; cleanup) {cleanup};; *) {READY}; cat >/dev/null;; esac"
    )
}

#[tokio::test]
async fn cleanup_finds_the_plugin_from_any_directory_and_keeps_what_it_cannot_remove() {
    let cleans = r#"echo '{"verbs":["cleanup"]}'"#;
    for (describe, cleanup, expected_code, expected) in [
        (cleans, "exit 0", 0, "with its `cleanup`"),
        (cleans, "sleep 63 & exit 0", 0, "with its `cleanup`"),
        (cleans, "exit 5", 1, "exit status: 5"),
        (cleans, "seq 1 1000000", 1, "1 MiB"),
        ("echo no JSON", "exit 0", 1, "not a description"),
        ("exit 4", "exit 0", 1, "exit status: 4"),
    ] {
        let home = Home::new();
        left_by(&home, &leaving(describe, cleanup)).await;
        let mut command = host(&home, "cleanup");
        command.current_dir("/");
        let (code, stderr) = exit_code(command).await;
        assert_eq!(code, expected_code, "{describe}; {cleanup}: {stderr}");
        assert!(stderr.contains(expected), "{expected}: {stderr}");
        let kept = !leaks::files(&home.path().join("state")).is_empty();
        assert_eq!(kept, code != 0, "{describe}; {cleanup}: {stderr}");
        leaks::gone("processes", || leaks::processes(&home.mark())).await;
    }
}

#[tokio::test]
async fn the_leftovers_of_a_plugin_that_is_gone_are_forgotten() {
    let home = Home::new();
    let path = left_by(&home, &leaving("exit 4", "exit 0")).await;
    std::fs::remove_file(path).expect("cannot remove");
    let (code, stderr) = exit_code(host(&home, "cleanup")).await;
    assert_eq!(code, 0, "{stderr}");
    assert!(stderr.contains("does not exist any more"), "{stderr}");
    assert!(leaks::files(&home.path().join("state")).is_empty());
}

#[tokio::test]
async fn a_plugin_that_cannot_be_started_leaves_nothing() {
    let home = Home::new();
    let path = script(&home, "");
    std::fs::write(&path, "#!/nowhere/interpreter\n").expect("cannot write");
    let (code, stderr) = exit_code(run_with(&home, &path, &json!({}))).await;
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.contains("cannot start"), "{stderr}");
    assert!(leaks::files(&home.path().join("state")).is_empty());
}

#[tokio::test]
async fn gc_does_not_touch_what_still_runs() {
    let home = Home::new();
    let mut stage = StageClient::start(run(&home));
    stage.wait_for("ready").await;
    for run_dir in [None, Some(home.run_dir())] {
        let mut command = home.command(&bin("devcluster-remote"));
        command.arg("gc");
        if let Some(run_dir) = run_dir {
            command.arg("--run-dir").arg(run_dir);
        }
        let (code, stderr) = exit_code(command).await;
        assert_eq!(code, 0, "{stderr}");
        assert!(
            stderr.contains("files is still running and was not touched"),
            "{stderr}"
        );
    }
    let (code, stderr) = exit_code(host(&home, "check")).await;
    assert_eq!(code, 0, "{stderr}");
}

#[tokio::test]
async fn gc_calls_the_cleanup_of_a_killed_plugin() {
    let home = Home::new();
    let scratch = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../devcluster-examples/plugin-shell/scratch.sh");
    let config = json!({"directory": home.path()});
    let mut stage = StageClient::start(run_with(&home, &scratch, &config));
    let outputs = stage.wait_for("outputs").await;
    let made = PathBuf::from(outputs["outputs"]["path"].as_str().expect("a path"));
    stage.wait_for("ready").await;
    assert!(made.is_dir());
    leaks::power_off(&leaks::processes(&home.mark()));
    stage.wait().await;
    assert!(made.is_dir(), "it was killed");
    for (args, gone) in [(&["gc", "--dry-run"][..], false), (&["gc"], true)] {
        let mut command = home.command(&bin("devcluster-remote"));
        command.args(args);
        let (code, stderr) = exit_code(command).await;
        assert_eq!(code, 0, "{stderr}");
        assert!(stderr.contains("files"), "{stderr}");
        assert_eq!(!made.exists(), gone, "{args:?}: {stderr}");
    }
}
