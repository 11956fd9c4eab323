//! The server's end of a session: the process that serves it, and what is left of one that we lost.
//!
//! A server that sees no end of a connection, because the network or this machine went away, keeps session and listener
//! for minutes or hours: a ghost, and the port is taken. It is ended from a new session, and only when process id, start
//! time and boot of the server are all the ones noted when it was ours.

mod left;

use std::ffi::OsString;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub(crate) use left::leftover;

/// What the ledger calls the server's end of a session.
pub(crate) const LEDGER_ENTRY: &str = "remote-session";

/// For any POSIX shell, without what a csh or fish as the login shell would read otherwise: quotes, `!`, line ends.
/// Answers `session PID START BOOT`, and `ghost PID ended|gone|stays` for each three arguments. Without /proc, `ps` serves.
const SCRIPT: &str = concat!(
    r#"boot=$(cat /proc/sys/kernel/random/boot_id 2>/dev/null || sysctl -n kern.boottime 2>/dev/null | tr -cs "[:alnum:]" _); "#,
    r#"start() { if [ -r /proc/self/stat ]; then read -r stat </proc/$1/stat && stat=${stat##*) } && set -- $stat && "#,
    r#"case $1 in Z) ;; *) echo ${20} ;; esac; else ps -o lstart= -p $1 | tr -cs "[:alnum:]" _; fi; } 2>/dev/null; "#,
    r#"name() { if [ -r /proc/self/comm ]; then cat /proc/$1/comm; else ps -o comm= -p $1; fi; } 2>/dev/null; "#,
    r#"parent() { if [ -r /proc/self/stat ]; then read -r stat </proc/$1/stat && stat=${stat##*) } && set -- $stat && "#,
    r#"echo $2; else ps -o ppid= -p $1 | tr -d " "; fi; } 2>/dev/null; "#,
    r#"pid=$PPID; found=; for up in 1 2 3 4 5 6; do case $(name $pid) in *sshd*|*dropbear*) found=$pid; break ;; esac; "#,
    r#"pid=$(parent $pid); [ -n "$pid" ] || break; done; "#,
    r#"while [ $# -ge 3 ]; do if [ "$1" = "$found" ]; then :; elif [ "$3" = "$boot" ] && [ "$(start $1)" = "$2" ]; then "#,
    r#"[ "$look" ] || { kill $1; tries=0; while [ "$(start $1)" = "$2" ] && [ $tries -lt 30 ]; do sleep 0.05 2>/dev/null || sleep 1; "#,
    r#"tries=$((tries+1)); [ $tries -eq 10 ] && kill -9 $1; done; }; "#,
    r#"if [ "$(start $1)" = "$2" ]; then echo ghost $1 stays; else echo ghost $1 ended; fi; "#,
    r#"else echo ghost $1 gone; fi; shift 3; done; "#,
    r#"[ -z "$found" ] || [ -z "$boot" ] || echo session $found $(start $found) $boot"#,
);

/// A process of the server, beyond doubt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RemoteSession {
    pid: u32,
    /// When it started, in the server's own words.
    start: String,
    /// Which boot of the server that was.
    boot: String,
}

/// What became of a session that we lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ghost {
    /// It was there, and we ended it.
    Ended,
    /// It was not there any more.
    Gone,
    /// It is there, and did not end.
    Stays,
}

/// What the server told about itself. Empty where the account runs no commands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Greeting {
    pub(crate) session: Option<RemoteSession>,
    ghosts: Vec<(u32, Ghost)>,
}

impl RemoteSession {
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Comes from a file and goes into a shell command: nothing else than what the server may have told.
    fn is_plain(&self) -> bool {
        let plain = |text: &str| {
            !text.is_empty()
                && text
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
        };
        self.pid > 1 && plain(&self.start) && plain(&self.boot)
    }
}

/// The command that introduces the server and ends these sessions, should they still be there.
pub(crate) fn greet<'a>(ghosts: impl IntoIterator<Item = &'a RemoteSession>) -> String {
    command("", ghosts)
}

/// The same, but for ending them: those that are there stay.
fn look<'a>(ghosts: impl IntoIterator<Item = &'a RemoteSession>) -> String {
    command("1", ghosts)
}

fn command<'a>(look: &str, ghosts: impl IntoIterator<Item = &'a RemoteSession>) -> String {
    let mut command = format!("exec sh -c 'look={look}; {SCRIPT}' sh");
    for ghost in ghosts.into_iter().filter(|ghost| ghost.is_plain()) {
        command += &format!(" {} {} {}", ghost.pid, ghost.start, ghost.boot);
    }
    command
}

impl Greeting {
    pub(crate) fn parse(text: &str) -> Greeting {
        let mut greeting = Greeting::default();
        for line in text.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words[..] {
                ["session", pid, start, boot] => {
                    greeting.session = pid
                        .parse()
                        .ok()
                        .map(|pid| RemoteSession {
                            pid,
                            start: start.to_owned(),
                            boot: boot.to_owned(),
                        })
                        .filter(RemoteSession::is_plain);
                }
                ["ghost", pid, fate] => {
                    let fate = match fate {
                        "ended" => Ghost::Ended,
                        "gone" => Ghost::Gone,
                        "stays" => Ghost::Stays,
                        _ => continue,
                    };
                    greeting
                        .ghosts
                        .extend(pid.parse().ok().map(|pid| (pid, fate)));
                }
                _ => {}
            }
        }
        greeting
    }

    /// What became of a session that the command named; `None` when the server did not say.
    pub(crate) fn fate_of(&self, session: &RemoteSession) -> Option<Ghost> {
        let named = self.ghosts.iter().find(|(pid, _)| *pid == session.pid);
        named.map(|(_, fate)| *fate)
    }
}

/// For the ledger: enough to find the session again without the config.
pub(crate) fn entry(session: &RemoteSession, login: &[OsString], server: &str) -> Value {
    let login: Vec<_> = login.iter().map(|arg| arg.to_string_lossy()).collect();
    json!({"session": session, "login": login, "server": server, "since": now()})
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    fn run(command: &str) -> Greeting {
        let output = Command::new("sh").args(["-c", command]).output().unwrap();
        Greeting::parse(&String::from_utf8(output.stdout).unwrap())
    }

    /// Of a process that stands for a server's; the test's own shell is no sshd, so it is asked for by hand.
    fn session_of(pid: u32) -> RemoteSession {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let start = stat
            .rsplit_once(") ")
            .unwrap()
            .1
            .split(' ')
            .nth(19)
            .unwrap();
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        RemoteSession {
            pid,
            start: start.to_owned(),
            boot: boot.trim().to_owned(),
        }
    }

    #[test]
    fn a_process_is_ended_only_when_pid_start_and_boot_are_all_the_noted_ones() {
        let mut child = Command::new("sleep")
            .arg("60")
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let noted = session_of(child.id());
        for other in [
            RemoteSession {
                start: "1".into(),
                ..noted.clone()
            },
            RemoteSession {
                boot: "another".into(),
                ..noted.clone()
            },
        ] {
            assert_eq!(run(&greet([&other])).fate_of(&other), Some(Ghost::Gone));
            assert!(child.try_wait().unwrap().is_none(), "ended for {other:?}");
        }
        assert_eq!(run(&look([&noted])).fate_of(&noted), Some(Ghost::Stays));
        assert!(child.try_wait().unwrap().is_none(), "looking ended it");
        assert_eq!(run(&greet([&noted])).fate_of(&noted), Some(Ghost::Ended));
        child.wait().unwrap();
        assert_eq!(run(&greet([&noted])).fate_of(&noted), Some(Ghost::Gone));
    }

    #[test]
    fn what_an_account_without_a_shell_answers_is_no_greeting() {
        for text in [
            "",
            "This account is currently not available.\n",
            "session 1 2 3",
            "session 77 ; x",
        ] {
            assert_eq!(Greeting::parse(text).session, None, "{text}");
        }
    }

    #[test]
    fn nothing_but_plain_words_reaches_the_servers_shell() {
        let evil = RemoteSession {
            pid: 77,
            start: "1; reboot".into(),
            boot: "b".into(),
        };
        assert!(!greet([&evil]).contains("reboot"));
        assert_eq!(SCRIPT.matches(['\'', '!', '\n']).count(), 0);
    }

    #[test]
    fn an_entry_of_long_ago_or_of_another_shape_asks_no_server() {
        let old = json!({"session": {"pid": 7, "start": "1", "boot": "b"}, "login": ["nowhere"], "since": 5});
        assert!(leftover(&old).is_none() && leftover(&json!({})).is_none());
    }
}
