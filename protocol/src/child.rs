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
mod tests;
