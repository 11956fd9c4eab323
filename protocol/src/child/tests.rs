use std::time::Duration;

use tokio::io::AsyncReadExt;

use super::*;

async fn read_all(supervised: &mut SupervisedChild) -> String {
    let mut text = String::new();
    let mut stdout = supervised.child.stdout.take().unwrap();
    let read = stdout.read_to_string(&mut text);
    tokio::time::timeout(Duration::from_secs(10), read)
        .await
        .unwrap()
        .unwrap();
    text
}

#[tokio::test]
async fn the_guard_passes_on_output_and_exit_code() {
    let mut supervised = spawn_by(false, "sh".as_ref(), ["-c", "echo hi; exit 7"]).unwrap();
    assert_eq!(read_all(&mut supervised).await, "hi\n");
    assert_eq!(supervised.child.wait().await.unwrap().code(), Some(7));
}

#[tokio::test]
async fn the_guard_ends_its_command_when_its_parent_dies_or_asks() {
    for ask in [false, true] {
        let script = "trap 'echo ended; exit 0' TERM; echo up; while :; do sleep 0.05; done";
        let mut supervised = spawn_by(false, "sh".as_ref(), ["-c", script]).unwrap();
        let mut up = [0; 3];
        supervised
            .child
            .stdout
            .as_mut()
            .unwrap()
            .read_exact(&mut up)
            .await
            .unwrap();
        if ask {
            supervised.terminate();
        } else {
            drop(supervised._guard_stdin.take());
        }
        assert_eq!(read_all(&mut supervised).await, "ended\n", "asked: {ask}");
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
#[allow(
    unsafe_code,
    reason = "the test sends the signal between fork and exec"
)]
async fn the_parent_death_signal_is_not_lost_before_exec() {
    use std::os::unix::process::ExitStatusExt;

    use rustix::process::{Signal, getpid, kill_process};
    use tokio::signal::unix::{SignalKind, signal};
    let _handler = signal(SignalKind::terminate()).unwrap();
    let mut command = Command::new("sleep");
    command.arg("60").kill_on_drop(true);
    die_with_us(&mut command);
    // SAFETY: a plain system call.
    unsafe {
        command.pre_exec(|| Ok(kill_process(getpid(), Signal::TERM)?));
    }
    let mut child = command.spawn().unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(10), child.wait()).await;
    assert_eq!(ended.unwrap().unwrap().signal(), Some(libc::SIGTERM));
}
