//! The command lines of ssh.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::time::Duration;

use protocol::{StageError, child};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::codes;
use crate::config::{Config, HostKeyPolicy};
use crate::ssh::{OUTPUT, Resolved};

/// Time limit of a login that runs one command.
pub(crate) const LOGIN: Duration = Duration::from_secs(8);

pub(crate) async fn output(
    args: &[impl AsRef<OsStr>],
) -> std::io::Result<(std::process::ExitStatus, String, String)> {
    let mut leashed = child::spawn("ssh", args)?;
    let (Some(stdout), Some(stderr)) = (leashed.child.stdout.take(), leashed.child.stderr.take())
    else {
        return Err(std::io::Error::other("ssh without pipes"));
    };
    let (stdout, stderr) = tokio::try_join!(read(stdout), read(stderr))?;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ok((leashed.child.wait().await?, text(stdout), text(stderr)))
}

/// Reads to the end, or up to the size limit.
pub(super) async fn read(pipe: impl AsyncRead + Unpin) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    pipe.take(OUTPUT).read_to_end(&mut bytes).await?;
    Ok(bytes)
}

/// ssh's version, which it prints on stderr.
pub(crate) async fn version() -> Result<String, StageError> {
    let (_, _, stderr) = output(&["-V"]).await.map_err(|e| not_started(&e))?;
    Ok(stderr.lines().next().unwrap_or_default().to_owned())
}

/// The error for an ssh that does not start.
pub(crate) fn not_started(error: &std::io::Error) -> StageError {
    if error.kind() == std::io::ErrorKind::NotFound {
        return StageError::new(codes::SSH_MISSING, "there is no ssh on $PATH");
    }
    StageError::io("cannot start ssh", error)
}

/// The arguments of the ssh that holds the tunnel, stays in the foreground and accepts requests at `socket`.
pub(crate) fn master(config: &Config, resolved: &Resolved, socket: &Path) -> Vec<OsString> {
    let seconds = resolved.connect_timeout(config).as_secs().max(1);
    let mut options = vec![
        "ControlPersist=no".to_owned(),
        "ExitOnForwardFailure=no".to_owned(),
        format!("ConnectTimeout={seconds}"),
        // Only this level reports arrivals and the reasons of refusals.
        "LogLevel=DEBUG1".to_owned(),
    ];
    options.extend(resolved.keepalives(config));
    let ciphers = resolved.faster_ciphers(cpu_has_aes());
    options.extend(ciphers.map(|ciphers| format!("Ciphers={ciphers}")));
    let words = ["-M", "-N", "-T", "-S"].map(OsString::from);
    let words = words.into_iter().chain([socket.into()]);
    arguments(config, words, options)
}

/// The arguments of an ssh that logs in as the tunnel does, to run the command that is appended.
pub(crate) fn login(config: &Config) -> Vec<OsString> {
    let options = vec![
        "ControlMaster=no".to_owned(),
        format!("ConnectTimeout={}", LOGIN.as_secs() / 2),
    ];
    let words = ["-T", "-S", "none"].map(OsString::from);
    arguments(config, words.into_iter(), options)
}

fn arguments(
    config: &Config,
    words: impl Iterator<Item = OsString>,
    mut options: Vec<String>,
) -> Vec<OsString> {
    let ours = [
        "ForkAfterAuthentication=no",
        // The user's own forwards and commands for this host do not apply.
        "ClearAllForwardings=yes",
        "RemoteCommand=none",
        "PermitLocalCommand=no",
        "BatchMode=yes",
    ];
    options.extend(ours.map(str::to_owned));
    options.extend(host_key_options(config));
    let options = options.into_iter();
    let options = options.flat_map(|option| ["-o".into(), option.into()]);
    words.chain(options).chain(destination(config)).collect()
}

fn host_key_options(config: &Config) -> Vec<String> {
    let (checking, file) = match config.host_key_policy {
        HostKeyPolicy::Strict => ("yes", None),
        HostKeyPolicy::AcceptNew => ("accept-new", None),
        // With a changed key in known_hosts, ssh would connect but forward nothing.
        HostKeyPolicy::Off => ("no", Some("/dev/null".to_owned())),
    };
    let mut options = vec![format!("StrictHostKeyChecking={checking}")];
    options.extend(
        file.iter()
            .map(|file| format!("GlobalKnownHostsFile={file}")),
    );
    let file = file.or_else(|| config.known_hosts_path.as_deref().map(quoted));
    options.extend(file.map(|file| format!("UserKnownHostsFile={file}")));
    options
}

/// ssh splits its options at spaces and expands `%` in paths.
fn quoted(path: &Path) -> String {
    format!("\"{}\"", path.display().to_string().replace('%', "%%"))
}

pub(super) fn destination(config: &Config) -> Vec<OsString> {
    let mut args: Vec<OsString> = Vec::new();
    if let Some(path) = &config.ssh_config_path {
        args.extend(["-F".into(), path.into()]);
    }
    if let Some(path) = &config.ssh_key_path {
        // Without this, ssh offers the agent's keys first, and the server may give up before ours.
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
