//! ssh's complaints, as errors that say what to do. The only place that knows ssh's wording.

use std::fmt;
use std::path::PathBuf;

use protocol::StageError;

/// Whom ssh talks to, in the words of messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) user: String,
    pub(crate) host: String,
    pub(crate) port: u16,
    /// The key that the config names.
    pub(crate) key: Option<PathBuf>,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}:{}", self.user, self.host, self.port)
    }
}

impl Target {
    /// How known_hosts and ssh-keyscan name the server.
    fn known_as(&self) -> String {
        match self.port {
            22 => self.host.clone(),
            port => format!("[{}]:{port}", self.host),
        }
    }

    fn key(&self) -> String {
        match &self.key {
            Some(path) => format!("ssh key {}", path.display()),
            None => "every key that ssh_config and the agent offer".to_owned(),
        }
    }
}

type Rule = fn(&Lines, &Target) -> Option<StageError>;

/// The most telling complaint first: a refused login is also what a locked key ends in.
const RULES: &[Rule] = &[
    own_options,
    control_socket,
    host_key,
    key_file,
    login,
    reaching,
];

/// Why ssh ended, or hung, before it was logged in.
pub(crate) fn connecting(lines: &[String], target: &Target) -> StageError {
    let lines = Lines(lines);
    let error = RULES
        .iter()
        .find_map(|rule| rule(&lines, target))
        .unwrap_or_else(|| {
            StageError::new("tunnel.ssh_failed", format!("ssh to {target} failed")).hint(format!(
                "see what it says by hand: ssh -v -p {} {}@{}",
                target.port, target.user, target.host
            ))
        });
    lines
        .complaints()
        .into_iter()
        .fold(error, StageError::cause)
}

/// Why ssh ended after it had been logged in.
pub(crate) fn connection_lost(lines: &[String], target: &Target) -> StageError {
    let error = StageError::new(
        "tunnel.connection_lost",
        format!("the ssh connection to {target} was lost"),
    );
    // Visitors' connections that found nobody at home are not the cause.
    let complaints = Lines(lines)
        .complaints()
        .into_iter()
        .filter(|l| !l.starts_with("connect_to "));
    complaints.fold(error.retryable(true), StageError::cause)
}

/// ssh did not come to an end in time.
pub(crate) fn no_answer(lines: &[String], target: &Target, seconds: f64) -> StageError {
    let error = StageError::new("tunnel.server_timeout", format!("{target} did not answer within {seconds} s"))
        .hint("the server or a firewall on the way may be slow or closed: allow more with connect_timeout, or try another network")
        .retryable(true);
    Lines(lines)
        .complaints()
        .into_iter()
        .fold(error, StageError::cause)
}

struct Lines<'a>(&'a [String]);

impl Lines<'_> {
    fn find(&self, text: &str) -> Option<&str> {
        self.0
            .iter()
            .map(String::as_str)
            .find(|line| line.contains(text))
    }

    fn has(&self, text: &str) -> bool {
        self.find(text).is_some()
    }

    fn complaints(&self) -> Vec<String> {
        let told = |l: &&String| {
            !l.is_empty() && !l.starts_with("debug") && !l.starts_with('@') && !is_chatter(l)
        };
        let all: Vec<String> = self.0.iter().filter(told).cloned().collect();
        all[all.len().saturating_sub(12)..].to_vec()
    }
}

fn is_chatter(line: &str) -> bool {
    [
        "Authenticated to ",
        "Transferred: ",
        "Bytes per second: ",
        "Warning: Permanently added",
    ]
    .iter()
    .any(|start| line.starts_with(start))
}

fn own_options(lines: &Lines, _: &Target) -> Option<StageError> {
    let bad = [
        "Bad configuration option",
        "terminating, ",
        "Bad owner or permissions on",
        "Can't open user config file",
    ];
    bad.iter().any(|text| lines.has(text)).then(|| {
        StageError::new(
            "tunnel.ssh_config_invalid",
            "ssh does not accept its configuration",
        )
        .hint("correct the file and line that ssh names, or name another file with ssh_config_path")
    })
}

fn control_socket(lines: &Lines, _: &Target) -> Option<StageError> {
    if lines.has("too long for Unix domain socket") || lines.has("ControlPath too long") {
        let message = "the path of ssh's control socket is too long for this system";
        return Some(
            StageError::new("tunnel.socket_path_too_long", message)
                .hint("set XDG_RUNTIME_DIR or TMPDIR to a directory with a shorter path"),
        );
    }
    None
}

fn host_key(lines: &Lines, target: &Target) -> Option<StageError> {
    let known_as = target.known_as();
    if lines.has("REMOTE HOST IDENTIFICATION HAS CHANGED") {
        let remove = lines.find("ssh-keygen -f").map_or_else(
            || format!("ssh-keygen -R \"{known_as}\""),
            |line| line.trim().to_owned(),
        );
        return Some(
            StageError::new(
                "tunnel.host_key_changed",
                format!(
                    "{target} shows another host key than the known one: somebody may be on the way"
                ),
            )
            .hint(format!(
                "ask whoever runs the server; if its key did change: {remove}"
            )),
        );
    }
    if lines.has("REVOKED HOST KEY") || lines.has("is marked as revoked") {
        return Some(
            StageError::new(
                "tunnel.host_key_revoked",
                format!("the host key of {target} is revoked"),
            )
            .hint("ask whoever runs the server for its new host key"),
        );
    }
    if lines.has("host key is known for") || lines.has("Host key verification failed") {
        return Some(StageError::new("tunnel.host_key_unknown", format!("the host key of {target} is not known"))
            .hint(format!(
                "compare its fingerprint and add it: ssh-keyscan -p {} {} >>~/.ssh/known_hosts\nor take it on first sight: host_key_policy: accept-new",
                target.port, target.host
            )));
    }
    None
}

fn key_file(lines: &Lines, target: &Target) -> Option<StageError> {
    let key = target.key();
    if lines.has("UNPROTECTED PRIVATE KEY FILE") || lines.has("bad permissions") {
        return Some(key_permissions(target));
    }
    if !lines.has("Permission denied") {
        return None;
    }
    if lines.has("agent refused operation") {
        return Some(
            StageError::new(
                "tunnel.agent_refused",
                "the ssh agent refused to sign with the key",
            )
            .hint("confirm it at the agent or touch the token, or add the key again: ssh-add"),
        );
    }
    // In batch mode ssh passes silently over a key whose passphrase it would have to ask for.
    let accepted = lines
        .find("Server accepts key: ")
        .is_some_and(|line| !line.ends_with(" agent"));
    if lines.has("incorrect passphrase") || accepted && !lines.has("Load key ") {
        let path = target
            .key
            .as_ref()
            .map_or_else(String::new, |p| format!(" {}", p.display()));
        return Some(
            StageError::new(
                "tunnel.key_locked",
                format!("{key} has a passphrase and no agent holds it"),
            )
            .hint(format!(
                "unlock it once: eval \"$(ssh-agent)\"; ssh-add{path}"
            )),
        );
    }
    lines.has("Load key ").then(|| {
        StageError::new("tunnel.key_invalid", format!("ssh cannot read {key}")).hint(
            "ssh_key_path has to be a private key in a format that ssh knows, not the .pub file",
        )
    })
}

pub(crate) fn key_permissions(target: &Target) -> StageError {
    let path = target
        .key
        .as_ref()
        .map_or_else(|| "<key>".to_owned(), |p| p.display().to_string());
    StageError::new(
        "tunnel.key_permissions",
        format!("others may read {}, so ssh ignores it", target.key()),
    )
    .hint(format!("chmod 600 {path}"))
}

fn login(lines: &Lines, target: &Target) -> Option<StageError> {
    if lines.has("Too many authentication failures") {
        return Some(
            StageError::new(
                "tunnel.too_many_keys",
                format!("{target} gave up after too many keys"),
            )
            .hint("name the right one with ssh_key_path: only that is offered then"),
        );
    }
    lines.has("Permission denied").then(|| {
        StageError::new("tunnel.key_refused", format!("{} was refused by {target}", target.key())).hint(format!(
            "check ssh_user and ssh_key_path; the public key has to be in {}'s authorized_keys there: ssh-copy-id -p {} {}@{}",
            target.user, target.port, target.user, target.host
        ))
    })
}

fn reaching(lines: &Lines, target: &Target) -> Option<StageError> {
    let error = |code: &str, message: String, hint: &str| {
        Some(
            StageError::new(format!("tunnel.{code}"), message)
                .hint(hint)
                .retryable(true),
        )
    };
    if lines.has("Could not resolve hostname") {
        let message = format!("the ssh server {} has no address", target.host);
        return error(
            "host_unknown",
            message,
            "check reverse_proxy_host and this machine's network",
        );
    }
    if lines.has("no matching ") {
        let message = format!("ssh and {target} have no algorithm in common");
        return error(
            "no_common_algorithm",
            message,
            "ssh's own line says which; allow it for this Host in ssh_config",
        )
        .map(|e| e.retryable(false));
    }
    // Before `Connection refused`: a connection that timed out is also said to be closed.
    if [
        "timed out",
        "No route to host",
        "Network is unreachable",
        "Host is down",
    ]
    .iter()
    .any(|t| lines.has(t))
    {
        let message = format!("{target} cannot be reached from here");
        return error(
            "server_unreachable",
            message,
            "check the network, a VPN, and the server's firewall for this port",
        );
    }
    if lines.has("Connection refused") {
        let message = format!("nothing listens at {target}");
        return error(
            "server_refused",
            message,
            "start sshd there, or correct reverse_proxy_host and ssh_port",
        );
    }
    if [
        "kex_exchange_identification",
        "Connection closed by",
        "Connection reset by",
    ]
    .iter()
    .any(|t| lines.has(t))
    {
        let message = format!("{target} hung up before anyone was logged in");
        let hint =
            "is it an ssh server? One may also be busy (MaxStartups) or have blocked this address";
        return error("server_hung_up", message, hint);
    }
    None
}

#[cfg(test)]
mod tests;
