//! The server's side of a session: the process that serves it, and how a ghost is ended.
//!
//! A server that sees no end of a connection, because the network or this machine is gone, keeps session and listener
//! for minutes or hours: a ghost, which keeps the port in use. A new session ends it, and only if process id, start
//! time and boot id of the server are the recorded ones.

mod cleanup;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub(crate) use cleanup::{SessionRecord, leftover};

/// The ledger's kind of entry for a session on the server.
pub(crate) const LEDGER_ENTRY: &str = "remote-session";

/// For any POSIX shell, without characters that csh or fish would read otherwise: quotes, `!`, line ends. Prints
/// `session PID START BOOT`, and `ghost PID ended|gone|stays` for every three arguments. Without /proc it uses `ps`.
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

/// A process of the server, identified without doubt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RemoteSession {
    pub(crate) pid: u32,
    /// Start time, in the server's own format.
    start: String,
    /// Boot id of the server.
    boot: String,
}

/// What happened to a lost session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ghost {
    /// It existed, and we ended it.
    Ended,
    /// It no longer existed.
    Gone,
    /// It exists and did not end.
    Stays,
}

/// The server's answer to the greeting command. Empty if the account may not run commands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Greeting {
    pub(crate) session: Option<RemoteSession>,
    ghosts: BTreeMap<u32, Ghost>,
}

impl RemoteSession {
    /// Whether the values, which come from a file, are safe in a shell command: they look like the server's own.
    fn is_plain(&self) -> bool {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
        let plain = |text: &str| !text.is_empty() && text.chars().all(is_plain);
        self.pid > 1 && plain(&self.start) && plain(&self.boot)
    }
}

/// The greeting command: names the server's process, and ends these sessions if they still exist.
pub(crate) fn greet(ghosts: &[RemoteSession]) -> String {
    command("", ghosts)
}

/// With a word in `look` no session is ended.
fn command(look: &str, ghosts: &[RemoteSession]) -> String {
    let mut command = format!("exec sh -c 'look={look}; {SCRIPT}' sh");
    for ghost in ghosts.iter().filter(|ghost| ghost.is_plain()) {
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
                    let session = RemoteSession {
                        pid: pid.parse().unwrap_or_default(),
                        start: start.to_owned(),
                        boot: boot.to_owned(),
                    };
                    greeting.session = Some(session).filter(RemoteSession::is_plain);
                }
                ["ghost", pid, fate] => {
                    let fate = match fate {
                        "ended" => Ghost::Ended,
                        "gone" => Ghost::Gone,
                        "stays" => Ghost::Stays,
                        _ => continue,
                    };
                    greeting.ghosts.extend(pid.parse().map(|pid| (pid, fate)));
                }
                _ => {}
            }
        }
        greeting
    }

    /// What happened to a session that the command named; `None` if the server did not report on it.
    pub(crate) fn fate_of(&self, session: &RemoteSession) -> Option<Ghost> {
        self.ghosts.get(&session.pid).copied()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_safe_words_reach_the_servers_shell() {
        let evil = RemoteSession {
            pid: 77,
            start: "1; reboot".into(),
            boot: "b".into(),
        };
        assert!(!greet(&[evil]).contains("reboot"));
        assert_eq!(SCRIPT.matches(['\'', '!', '\n']).count(), 0);
        for text in ["session 1 2 3", "session 77 ; x"] {
            assert_eq!(Greeting::parse(text).session, None, "{text}");
        }
    }

    #[test]
    fn an_old_or_malformed_entry_does_not_contact_the_server() {
        let old = json!({"session": {"pid": 7, "start": "1", "boot": "b"}, "login": ["nowhere"], "server": "s", "since": 5});
        assert!(leftover(&old).is_none() && leftover(&json!({})).is_none());
    }
}
