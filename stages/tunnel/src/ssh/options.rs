//! What ssh is told, and what it makes of the user's own ssh_config.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use protocol::{StageError, child};
use tokio::io::AsyncReadExt;

use crate::choices::{HostKeyPolicy, Seconds};
use crate::config::Config;
use crate::ssh::failure::{self, Target};

/// Reading ssh_config takes 10 ms; a `Match exec` in it may take longer.
const RESOLVE: Duration = Duration::from_secs(10);

/// A login for one command, of a process that has nothing else to do.
pub(crate) const LOGIN: Duration = Duration::from_secs(8);

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Nine seconds to notice, for a packet a second at most on an idle line.
const KEEPALIVE_INTERVAL: u32 = 3;
const KEEPALIVE_COUNT: u32 = 2;

/// The words of `ssh -G` that we need.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Resolved {
    pub(crate) host: String,
    pub(crate) user: String,
    pub(crate) port: u16,
    ciphers: String,
    has_proxy: bool,
    /// What ssh_config says, where it says anything.
    connect_timeout: Option<u64>,
    keepalive_interval: Option<u32>,
}

impl Resolved {
    /// Asks ssh how it understands the host: an alias of ssh_config has a name, a user and a port of its own.
    pub(crate) async fn ask(config: &Config) -> Result<Resolved, StageError> {
        let mut args = vec!["-G".into()];
        args.extend(destination(config));
        let (status, stdout, stderr) = tokio::time::timeout(RESOLVE, output(&args))
            .await
            .map_err(|_| {
                StageError::new("tunnel.ssh_config_slow", "ssh -G does not come to an end").hint(
                    "a `Match exec` in ssh_config may hang: name another file with ssh_config_path",
                )
            })?
            .map_err(|e| not_started(&e))?;
        let resolved = Resolved::parse(&stdout);
        if !status.success() || resolved.host.is_empty() {
            let lines: Vec<String> = stderr.lines().map(str::to_owned).collect();
            let target = Target {
                user: String::new(),
                host: config.reverse_proxy_host.clone(),
                port: 22,
                key: None,
            };
            return Err(failure::connecting(&lines, &target));
        }
        Ok(resolved)
    }

    fn parse(text: &str) -> Resolved {
        let mut resolved = Resolved {
            port: 22,
            ..Resolved::default()
        };
        for (word, value) in text.lines().filter_map(|line| line.split_once(' ')) {
            match word {
                "hostname" => resolved.host = value.to_owned(),
                "user" => resolved.user = value.to_owned(),
                "port" => resolved.port = value.parse().unwrap_or(22),
                "proxyjump" | "proxycommand" => resolved.has_proxy = value != "none",
                // "none" and 0 are ssh's defaults: nobody asked for anything.
                "connecttimeout" => resolved.connect_timeout = value.parse().ok(),
                "serveraliveinterval" => {
                    resolved.keepalive_interval = value.parse().ok().filter(|n| *n > 0);
                }
                "ciphers" => resolved.ciphers = value.to_owned(),
                _ => {}
            }
        }
        resolved
    }

    pub(crate) fn target(&self, config: &Config) -> Target {
        Target {
            user: self.user.clone(),
            host: self.host.clone(),
            port: self.port,
            key: config.ssh_key_path.clone(),
        }
    }

    /// Where ssh connects to by itself.
    pub(crate) fn directly_reached(&self) -> Option<(String, u16)> {
        (!self.has_proxy).then(|| (self.host.clone(), self.port))
    }

    pub(crate) fn connect_timeout(&self, config: &Config) -> Duration {
        let own = self.connect_timeout.map(Duration::from_secs);
        let asked = config.connect_timeout.map(Seconds::duration);
        asked.or(own).unwrap_or(CONNECT_TIMEOUT)
    }

    /// A half-open connection is noticed after interval × (count + 1). Who set it in ssh_config is obeyed.
    fn keepalives(&self, config: &Config) -> Vec<String> {
        let untouched = self.keepalive_interval.is_some();
        let ours = |default| (!untouched).then_some(default);
        let interval = config.keepalive_interval.or(ours(KEEPALIVE_INTERVAL));
        let count = config.keepalive_count.or(ours(KEEPALIVE_COUNT));
        let interval = interval.map(|n| format!("ServerAliveInterval={n}"));
        let count = count.map(|n| format!("ServerAliveCountMax={n}"));
        interval.into_iter().chain(count).collect()
    }

    /// AES-GCM is nearly twice as fast as ssh's default where the CPU has AES. Only the order changes: what the user
    /// rules out stays out, and who puts anything else than the default first is obeyed.
    fn faster_ciphers(&self, cpu_has_aes: bool) -> Option<String> {
        const DEFAULT: &str = "chacha20-poly1305@openssh.com";
        const FAST: &str = "aes128-gcm@openssh.com";
        let others: Vec<&str> = self.ciphers.split(',').filter(|c| *c != FAST).collect();
        let wanted = cpu_has_aes
            && others.first() == Some(&DEFAULT)
            && self.ciphers.split(',').any(|c| c == FAST);
        wanted.then(|| format!("{FAST},{}", others.join(",")))
    }
}

pub(crate) async fn output(
    args: &[OsString],
) -> std::io::Result<(std::process::ExitStatus, String, String)> {
    let mut leashed = child::spawn("ssh", args)?;
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let (Some(mut out), Some(mut err)) = (leashed.child.stdout.take(), leashed.child.stderr.take())
    else {
        return Err(std::io::Error::other("ssh without pipes"));
    };
    tokio::try_join!(out.read_to_end(&mut stdout), err.read_to_end(&mut stderr))?;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ok((leashed.child.wait().await?, text(stdout), text(stderr)))
}

/// What ssh calls itself: it says so on stderr.
pub(crate) async fn version() -> Result<String, StageError> {
    let (_, _, stderr) = output(&["-V".into()]).await.map_err(|e| not_started(&e))?;
    Ok(stderr.lines().next().unwrap_or_default().to_owned())
}

/// ssh could not even be started.
pub(crate) fn not_started(error: &std::io::Error) -> StageError {
    if error.kind() == std::io::ErrorKind::NotFound {
        return StageError::new("tunnel.ssh_missing", "there is no ssh on PATH")
            .hint("install the OpenSSH client: sudo apt-get install openssh-client");
    }
    StageError::io("cannot start ssh", error)
}

/// The arguments of the ssh that holds the tunnel, which stays in the foreground and takes requests at `socket`.
pub(crate) fn master(config: &Config, resolved: &Resolved, socket: &Path) -> Vec<OsString> {
    let mut args: Vec<OsString> = ["-M", "-N", "-T", "-S"].map(Into::into).to_vec();
    args.push(socket.into());
    let seconds = resolved.connect_timeout(config).as_secs().max(1);
    let mut options = vec![
        "ControlPersist=no".to_owned(),
        "ForkAfterAuthentication=no".to_owned(),
        // The user's own forwards and commands for this host are not for this connection.
        "ClearAllForwardings=yes".to_owned(),
        "RemoteCommand=none".to_owned(),
        "PermitLocalCommand=no".to_owned(),
        "ExitOnForwardFailure=no".to_owned(),
        "BatchMode=yes".to_owned(),
        format!("ConnectTimeout={seconds}"),
        // Arrivals and the reasons of refusals are reported at this level only.
        "LogLevel=DEBUG1".to_owned(),
    ];
    options.extend(resolved.keepalives(config));
    options.extend(host_key_options(config));
    if let Some(ciphers) = resolved.faster_ciphers(cpu_has_aes()) {
        options.push(format!("Ciphers={ciphers}"));
    }
    for option in options {
        args.extend(["-o".into(), option.into()]);
    }
    args.extend(destination(config));
    args
}

/// The arguments of an ssh that logs in as the tunnel does and runs the command that follows them.
pub(crate) fn login(config: &Config) -> Vec<OsString> {
    let mut args: Vec<OsString> = ["-T", "-S", "none"].map(Into::into).to_vec();
    let mut options = vec![
        "ControlMaster=no".to_owned(),
        "ForkAfterAuthentication=no".to_owned(),
        "ClearAllForwardings=yes".to_owned(),
        "RemoteCommand=none".to_owned(),
        "PermitLocalCommand=no".to_owned(),
        "BatchMode=yes".to_owned(),
        format!("ConnectTimeout={}", LOGIN.as_secs() / 2),
    ];
    options.extend(host_key_options(config));
    for option in options {
        args.extend(["-o".into(), option.into()]);
    }
    args.extend(destination(config));
    args
}

fn host_key_options(config: &Config) -> Vec<String> {
    let mut options = match config.host_key_policy {
        HostKeyPolicy::Strict => vec!["StrictHostKeyChecking=yes".to_owned()],
        HostKeyPolicy::AcceptNew => vec!["StrictHostKeyChecking=accept-new".to_owned()],
        // With a changed key on file, ssh would connect but forward nothing.
        HostKeyPolicy::Off => {
            return [
                "StrictHostKeyChecking=no",
                "UserKnownHostsFile=/dev/null",
                "GlobalKnownHostsFile=/dev/null",
            ]
            .map(str::to_owned)
            .to_vec();
        }
    };
    if let Some(path) = &config.known_hosts_path {
        options.push(format!("UserKnownHostsFile={}", quoted(path)));
    }
    options
}

/// ssh splits its options at spaces and expands `%` in paths.
fn quoted(path: &Path) -> String {
    format!("\"{}\"", path.display().to_string().replace('%', "%%"))
}

fn destination(config: &Config) -> Vec<OsString> {
    let mut args: Vec<OsString> = Vec::new();
    if let Some(path) = &config.ssh_config_path {
        args.extend(["-F".into(), path.into()]);
    }
    if let Some(path) = &config.ssh_key_path {
        // Else keys of the agent go first, and a server may give up before ours.
        let key = format!("IdentityFile={}", quoted(path));
        args.extend([
            "-o".into(),
            key.into(),
            "-o".into(),
            "IdentitiesOnly=yes".into(),
        ]);
    }
    if let Some(port) = config.ssh_port {
        args.extend(["-p".into(), port.to_string().into()]);
    }
    if let Some(user) = &config.ssh_user {
        args.extend(["-l".into(), user.into()]);
    }
    args.extend(["--".into(), config.reverse_proxy_host.clone().into()]);
    args
}

fn cpu_has_aes() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("aes");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    return false;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_ciphers(ciphers: &str) -> Resolved {
        Resolved {
            ciphers: ciphers.into(),
            ..Resolved::default()
        }
    }

    #[test]
    fn a_faster_cipher_goes_first_only_where_the_user_left_the_order_to_ssh() {
        let default =
            with_ciphers("chacha20-poly1305@openssh.com,aes128-ctr,aes128-gcm@openssh.com");
        let faster = "aes128-gcm@openssh.com,chacha20-poly1305@openssh.com,aes128-ctr";
        assert_eq!(default.faster_ciphers(true).as_deref(), Some(faster));
        assert_eq!(default.faster_ciphers(false), None);
        for own in [
            "aes256-ctr,aes128-gcm@openssh.com",
            "chacha20-poly1305@openssh.com",
            "",
        ] {
            assert_eq!(with_ciphers(own).faster_ciphers(true), None, "{own}");
        }
    }

    #[test]
    fn ssh_says_what_an_alias_stands_for() {
        let text = "host proxy\nuser ubuntu\nhostname 203.0.113.7\nport 2222\nciphers a,b\n";
        let resolved = Resolved::parse(text);
        assert_eq!(
            (
                resolved.host.as_str(),
                resolved.user.as_str(),
                resolved.port
            ),
            ("203.0.113.7", "ubuntu", 2222)
        );
    }

    #[test]
    fn keepalives_of_the_config_win_over_ssh_config_and_that_wins_over_ours() {
        let config = |fields: &str| -> Config {
            let text = format!(r#"{{"reverse_proxy_host": "h"{fields}}}"#);
            serde_json::from_str(&text).unwrap()
        };
        let untouched =
            Resolved::parse("serveraliveinterval 0\nserveralivecountmax 3\nconnecttimeout none\n");
        let own =
            Resolved::parse("serveraliveinterval 60\nserveralivecountmax 3\nconnecttimeout 4\n");
        assert_eq!(
            untouched.keepalives(&config("")),
            ["ServerAliveInterval=3", "ServerAliveCountMax=2"]
        );
        assert_eq!(own.keepalives(&config("")), Vec::<String>::new());
        let asked = config(r#", "keepalive_interval": 7, "connect_timeout": 2.5"#);
        assert_eq!(own.keepalives(&asked), ["ServerAliveInterval=7"]);
        let seconds = [&untouched, &own].map(|r| r.connect_timeout(&config("")).as_secs());
        assert_eq!(seconds, [10, 4]);
        assert_eq!(own.connect_timeout(&asked), Duration::from_millis(2500));
    }

    #[test]
    fn a_host_that_looks_like_an_option_stays_a_host_and_flags_name_what_the_config_names() {
        let config: Config = serde_json::from_value(serde_json::json!({
            "reverse_proxy_host": "h", "ssh_key_path": "/k/id", "ssh_port": 2222, "ssh_user": "u",
            "known_hosts_path": "/a b/100%", "ssh_config_path": "none",
        }))
        .unwrap();
        let args: Vec<String> = master(&config, &Resolved::default(), Path::new("/s"))
            .into_iter()
            .map(|a| a.into_string().unwrap())
            .collect();
        assert!(
            args.ends_with(
                &[
                    "-F",
                    "none",
                    "-o",
                    "IdentityFile=\"/k/id\"",
                    "-o",
                    "IdentitiesOnly=yes",
                    "-p",
                    "2222",
                    "-l",
                    "u",
                    "--",
                    "h"
                ]
                .map(str::to_owned)
            )
        );
        assert!(args.contains(&"UserKnownHostsFile=\"/a b/100%%\"".to_owned()));
        assert!(args.contains(&"StrictHostKeyChecking=yes".to_owned()));
    }
}
