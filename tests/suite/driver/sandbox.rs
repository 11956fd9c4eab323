//! `devcluster-remote sandbox`, as `make demo` runs it.

use std::process::Stdio;
use std::time::Duration;

use support::devcluster::python_program;
use support::{Home, bin, leaks};
use tokio::process::Command;

/// A sandbox takes at most a minute.
const PATIENCE: Duration = Duration::from_secs(90);

fn sandbox(home: &Home, args: &[&str]) -> Command {
    let temporary = home.path().join("tmp");
    std::fs::create_dir_all(&temporary).expect("cannot make a directory");
    let mut command = home.command(&bin("devcluster-remote"));
    command
        .arg("sandbox")
        .args(args)
        .env("DEVCLUSTER", python_program("DEVCLUSTER", "devcluster"))
        .env("TMPDIR", temporary)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

async fn nothing_is_left(home: &Home) {
    leaks::gone("processes", || leaks::processes(&home.mark())).await;
}

#[tokio::test]
async fn it_proves_that_a_pod_reaches_the_master_and_leaves_nothing() {
    let home = Home::new();
    let output = sandbox(&home, &["--check"]).output();
    let output = tokio::time::timeout(PATIENCE, output)
        .await
        .expect("no end")
        .expect("no start");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    for step in [
        "outputs of tunnel",
        "outputs of gateway",
        "determined_master_port",
        "reached the master at 127.0.0.1:",
        "nothing was left",
    ] {
        assert!(stderr.contains(step), "no `{step}` in\n{stderr}");
    }
    nothing_is_left(&home).await;
    let left = leaks::files(&home.path().join("tmp"));
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn a_missing_devcluster_is_named_with_its_install_line() {
    let home = Home::new();
    let output = sandbox(&home, &["--check"])
        .env("DEVCLUSTER", "/nowhere/devcluster")
        .output()
        .await
        .expect("no start");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(
        stderr.contains("pipx install devcluster==1.3.2"),
        "{stderr}"
    );
}

#[tokio::test]
async fn killed_at_any_time_it_leaves_no_process() {
    let home = Home::new();
    for milliseconds in [150, 500, 900, 1400, 2000, 3000] {
        let mut child = sandbox(&home, &["--check"])
            .stderr(Stdio::null())
            .spawn()
            .expect("no start");
        // A random time is the purpose here: there is no event to wait for.
        drop(tokio::time::timeout(Duration::from_millis(milliseconds), child.wait()).await);
        child.kill().await.expect("cannot kill");
        nothing_is_left(&home).await;
    }
}
