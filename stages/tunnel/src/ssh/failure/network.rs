//! ssh's messages about the network.

use protocol::StageError;

use super::{Lines, Server, error};

/// A failed ProxyJump or ProxyCommand prints messages that could also be about the server.
pub(super) fn proxy(lines: &Lines, server: &Server) -> Option<StageError> {
    let message = format!("the proxy on the way to {server} let nobody through");
    let hint = format!(
        "the lines above are its own. A jump host can ask nobody for a passphrase here: its key has to be in the agent. \
         See whether ProxyJump or ProxyCommand of ssh_config works by hand: {}",
        server.debug_command()
    );
    let is_proxy = lines.has("UNKNOWN port 65535");
    is_proxy.then(|| error("tunnel.proxy_failed", message, hint).retryable(true))
}

pub(super) fn reaching(lines: &Lines, server: &Server) -> Option<StageError> {
    let (code, message, hint) = if lines.has("Could not resolve hostname") {
        (
            "tunnel.host_unknown",
            format!("the ssh server {} has no address", server.host),
            "check reverse_proxy_host and this machine's network",
        )
    } else if lines.has("no matching ") {
        let message = format!("ssh and {server} have no algorithm in common");
        let hint = "ssh's own line says which; allow it for this Host in ssh_config";
        return Some(error("tunnel.no_common_algorithm", message, hint));
    } else if lines.has_any(&[
        "timed out",
        "No route to host",
        "Network is unreachable",
        "Host is down",
    ]) {
        // Before `Connection refused`: ssh also says "closed" of a connection that timed out.
        (
            "tunnel.server_unreachable",
            format!("{server} cannot be reached from here"),
            "check the network, a VPN, and the server's firewall for this port",
        )
    } else if lines.has("Connection refused") {
        (
            "tunnel.server_refused",
            format!("nothing listens at {server}"),
            "start sshd there, or correct reverse_proxy_host and ssh_port",
        )
    } else if lines.has_any(&["Exceeded MaxStartups", "Not allowed at this time"]) {
        // 9.8 and later penalize an address after failed logins, with the second of these messages.
        (
            "tunnel.server_busy",
            format!("{server} takes no more logins for the moment"),
            "try again in a minute; on the server, raise MaxStartups in sshd_config (such as 100:30:200), and from \
             OpenSSH 9.8 on look at PerSourcePenalties",
        )
    } else if lines.has_any(&[
        "kex_exchange_identification",
        "Connection closed by",
        "Connection reset by",
    ]) {
        (
            "tunnel.server_hung_up",
            format!("{server} hung up before anyone was logged in"),
            "is it an ssh server? One may also have blocked this address",
        )
    } else {
        return None;
    };
    Some(error(code, message, hint).retryable(true))
}
