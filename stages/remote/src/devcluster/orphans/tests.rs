use std::os::unix::process::ExitStatusExt;

use serde_json::{Value, json};
use tokio::process::{Child, Command};

use super::*;

fn sleeper(seconds: &str) -> (Child, u32) {
    let child = Command::new("sleep")
        .arg(seconds)
        .kill_on_drop(true)
        .spawn();
    let child = child.unwrap();
    let pid = child.id().unwrap();
    (child, pid)
}

fn temp_dir(running: &Value) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("lock"), "").unwrap();
    std::fs::write(dir.path().join("running.json"), running.to_string()).unwrap();
    dir
}

#[tokio::test]
async fn an_orphan_gets_its_signal_and_another_process_with_its_pid_does_not() {
    let (mut ours, pid) = sleeper("901");
    let (mut stranger, other) = sleeper("902");
    let dir = temp_dir(&json!([
        {"pid": other, "match_args": "determined-master", "kill_signal": "SIGKILL"},
        {"pid": other, "match_args": "", "kill_signal": "SIGKILL"},
        {"pid": pid, "match_args": "sleep 901", "kill_signal": "SIGTERM"},
    ]));
    assert_eq!(
        list_alive(dir.path()).await,
        [format!("process {pid} (`sleep 901`)")]
    );
    // A child stays in the process list until it is reaped.
    let (ended, status) = tokio::join!(end(dir.path()), ours.wait());
    assert_eq!(ended, [format!("process {pid} (`sleep 901`)")]);
    assert_eq!(status.unwrap().signal(), Some(15));
    assert!(stranger.try_wait().unwrap().is_none());
}

#[tokio::test]
async fn a_missing_or_invalid_list_ends_nothing() {
    assert_eq!(end(Path::new("/nowhere")).await, [""; 0]);
    let dir = temp_dir(&Value::from("torn"));
    assert_eq!(end(dir.path()).await, [""; 0]);
}
