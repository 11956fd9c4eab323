//! Child processes that end when this process dies, also by SIGKILL.

use std::ffi::OsStr;
use std::process::Stdio;

use tokio::process::{Child, ChildStdin, Command};

/// A child that gets SIGTERM when this process dies in any way, and SIGKILL when this value is dropped.
#[derive(Debug)]
pub struct SupervisedChild {
    /// The child, or the guard shell around it. Its stdout and stderr are pipes.
    pub child: Child,
    /// Kept open while the child may live; a guard shell watches it.
    _guard_stdin: Option<ChildStdin>,
}

/// A shell that waits for its command and for the end of its stdin, which means that this process died: then it sends
/// SIGTERM to the command.
const GUARD: &str = r#"
child= asked=
trap 'asked=1; [ -z "$child" ] || kill -TERM $child' TERM INT HUP
exec 3<&0 </dev/null
"$@" 3<&- & child=$!
[ -z "$asked" ] || kill -TERM $child
{ cat <&3; kill -TERM $child; } >/dev/null 2>&1 & watch=$!
exec 3<&-
wait $child; code=$?
while kill -0 $child 2>/dev/null; do wait $child; code=$?; done
kill $watch 2>/dev/null
exit $code
"#;

/// Starts a program that inherits the streams of this process, and gets SIGTERM when this process dies.
pub fn spawn_inheriting(command: &mut Command) -> std::io::Result<Child> {
    if cfg!(target_os = "linux") {
        die_with_us(command);
        return command.spawn();
    }
    let child = command.spawn()?;
    if let Some(pid) = child.id() {
        // It ends as soon as either process has ended.
        let watch = "while kill -0 $1 && kill -0 $2; do sleep 1; done 2>/dev/null; kill -0 $1 2>/dev/null || kill -TERM $2";
        let [ours, theirs] = [std::process::id(), pid].map(|p| p.to_string());
        let null = || Stdio::null();
        std::process::Command::new("/bin/sh")
            .args(["-c", watch, "watch", &ours, &theirs])
            .stdin(null())
            .stdout(null())
            .stderr(null())
            .spawn()?;
    }
    Ok(child)
}

/// Starts a supervised program with piped stdin, stdout and stderr. The end of its stdin asks it to end.
pub fn spawn_piped(command: &mut Command) -> std::io::Result<Child> {
    die_with_us(command);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command.process_group(0).kill_on_drop(true).spawn()
}

/// Starts a supervised program with stdin closed and stdout and stderr piped. Call it on the main thread: on Linux the
/// parent-death signal follows the thread that starts the child, not the process.
pub fn spawn<A: AsRef<OsStr>>(
    program: impl AsRef<OsStr>,
    args: impl IntoIterator<Item = A>,
) -> std::io::Result<SupervisedChild> {
    spawn_by(cfg!(target_os = "linux"), program.as_ref(), args)
}

fn spawn_by<A: AsRef<OsStr>>(
    kernel: bool,
    program: &OsStr,
    args: impl IntoIterator<Item = A>,
) -> std::io::Result<SupervisedChild> {
    let mut command = if kernel {
        let mut command = Command::new(program);
        die_with_us(&mut command);
        command.stdin(Stdio::null());
        command
    } else {
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", GUARD, "guard"])
            .arg(program)
            .stdin(Stdio::piped());
        command
    };
    without_terminal(&mut command);
    command
        .args(args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command.spawn()?;
    let guard_stdin = child.stdin.take();
    Ok(SupervisedChild {
        child,
        _guard_stdin: guard_stdin,
    })
}

/// Gives the child a session of its own: Ctrl-C at a terminal does not reach it, and it cannot stop at a passphrase prompt.
#[allow(
    unsafe_code,
    reason = "a session can only be left between fork and exec"
)]
fn without_terminal(command: &mut Command) {
    let leave = || Ok(rustix::process::setsid().map(drop)?);
    // SAFETY: a plain system call that neither allocates nor takes locks.
    unsafe {
        command.pre_exec(leave);
    }
}

#[cfg(target_os = "linux")]
#[allow(
    unsafe_code,
    reason = "the parent-death signal can only be set between fork and exec"
)]
fn die_with_us(command: &mut Command) {
    use rustix::process::{Signal, getppid, set_parent_process_death_signal};
    let parent = std::process::id();
    let set = move || {
        // Until exec, the child has the signal handler of this process, which would ignore the signal.
        // SAFETY: a plain system call.
        if unsafe { libc::signal(libc::SIGTERM, libc::SIG_DFL) } == libc::SIG_ERR {
            return Err(std::io::Error::last_os_error());
        }
        set_parent_process_death_signal(Some(Signal::TERM))?;
        // This process may have died before the signal was set.
        match getppid() {
            Some(pid) if pid.as_raw_nonzero().get().unsigned_abs() == parent => Ok(()),
            _ => Err(std::io::Error::other("the parent is gone")),
        }
    };
    // SAFETY: plain system calls that neither allocate nor take locks.
    unsafe {
        command.pre_exec(set);
    }
}

#[cfg(not(target_os = "linux"))]
fn die_with_us(_: &mut Command) {}

impl SupervisedChild {
    /// Sends SIGTERM.
    pub fn terminate(&self) {
        let pid = self
            .child
            .id()
            .and_then(|id| rustix::process::Pid::from_raw(id as i32));
        if let Some(pid) = pid {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
    }
}

#[cfg(test)]
mod tests {
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
}
