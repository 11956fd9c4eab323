//! ssh's complaints about the way to the server.

use protocol::StageError;

use super::{Lines, Target};

/// What ProxyJump or ProxyCommand complain of is about them, in words that would also fit the server.
pub(super) fn proxy(lines: &Lines, target: &Target) -> Option<StageError> {
    if !lines.has("UNKNOWN port 65535") {
        return None;
    }
    let message = format!("the proxy on the way to {target} let nobody through");
    Some(
        StageError::new("tunnel.proxy_failed", message)
            .hint(format!(
                "the lines above are its own. A jump host can ask nobody for a passphrase here: its key has to be in the agent. \
                 See whether ProxyJump or ProxyCommand of ssh_config works by hand: {}",
                target.by_hand()
            ))
            .retryable(true),
    )
}

pub(super) fn reaching(lines: &Lines, target: &Target) -> Option<StageError> {
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
    // 9.8 and later penalize an address that failed to log in, in these words.
    if lines.has("Exceeded MaxStartups") || lines.has("Not allowed at this time") {
        let message = format!("{target} takes no more logins for the moment");
        let hint = "try again in a minute; on the server, raise MaxStartups in sshd_config (such as 100:30:200), and from \
                    OpenSSH 9.8 on look at PerSourcePenalties";
        return error("server_busy", message, hint);
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
        let hint = "is it an ssh server? One may also have blocked this address";
        return error("server_hung_up", message, hint);
    }
    None
}
