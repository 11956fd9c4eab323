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

fn leader(seconds: &str) -> (Child, u32) {
    let mut command = Command::new("sleep");
    let command = command.arg(seconds).process_group(0).kill_on_drop(true);
    let child = command.spawn().unwrap();
    let pid = child.id().unwrap();
    (child, pid)
}

#[tokio::test]
async fn a_script_that_became_another_program_is_ended_and_a_younger_process_is_not() {
    let (mut ours, pid) = leader("903");
    let (mut younger, other) = leader("904");
    let of = |pid| json!([{"pid": pid, "match_args": "sh db.sh", "kill_signal": "SIGTERM"}]);
    let dir = temp_dir(&of(pid));
    let (ended, status) = tokio::join!(end(dir.path()), ours.wait());
    assert_eq!(ended, [format!("process {pid} (`sleep 903`)")]);
    assert_eq!(status.unwrap().signal(), Some(15));
    let dir = temp_dir(&of(other));
    let list = File::options()
        .write(true)
        .open(dir.path().join("running.json"));
    let before = SystemTime::now() - Duration::from_secs(60);
    list.unwrap().set_modified(before).unwrap();
    assert_eq!(end(dir.path()).await, [""; 0]);
    assert!(younger.try_wait().unwrap().is_none());
}

#[test]
fn the_time_since_the_start_of_a_process_is_read() {
    for (text, seconds) in [
        ("00:07", Some(7)),
        ("02:01:05", Some(7265)),
        ("3-00:00:01", Some(259_201)),
        ("", None),
    ] {
        assert_eq!(elapsed_time(text).map(|it| it.as_secs()), seconds, "{text}");
    }
}

#[tokio::test]
async fn a_missing_or_invalid_list_ends_nothing() {
    assert_eq!(end(Path::new("/nowhere")).await, [""; 0]);
    let dir = temp_dir(&Value::from("torn"));
    assert_eq!(end(dir.path()).await, [""; 0]);
}
