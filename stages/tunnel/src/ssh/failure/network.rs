//! ssh's messages about the network.

use protocol::StageError;

use super::{Lines, Server};
use crate::codes;

/// A failed ProxyJump or ProxyCommand prints messages that could also be about the server.
pub(super) fn proxy(lines: &Lines, server: &Server) -> Option<StageError> {
    let message = format!("the proxy on the way to {server} did not connect");
    let hint = format!(
        "the lines above are the proxy's own. A jump host cannot ask for a passphrase here: add its key to the agent. \
          Try ProxyJump or ProxyCommand of ssh_config by hand: {}",
        server.debug_command()
    );
    let is_proxy = lines.has("UNKNOWN port 65535");
    is_proxy.then(|| StageError::new(codes::PROXY_FAILED, message).hint(hint))
}

pub(super) fn reaching(lines: &Lines, server: &Server) -> Option<StageError> {
    let (code, message) = if lines.has("Could not resolve hostname") {
        let message = format!(
            "the name of the ssh server {} does not resolve",
            server.host
        );
        (codes::HOST_UNKNOWN, message)
    } else if lines.has("no matching ") {
        let message = format!("ssh and {server} have no algorithm in common");
        (codes::NO_COMMON_ALGORITHM, message)
    } else if lines.has_any(&[
        "timed out",
        "No route to host",
        "Network is unreachable",
        "Host is down",
    ]) {
        // Before `Connection refused`: ssh also says "closed" of a connection that timed out.
        let message = format!("{server} cannot be reached from this machine");
        (codes::SERVER_UNREACHABLE, message)
    } else if lines.has("Connection refused") {
        let message = format!("nothing listens at {server}");
        (codes::SERVER_REFUSED, message)
    } else if lines.has_any(&["Exceeded MaxStartups", "Not allowed at this time"]) {
        // 9.8 and later penalize an address after failed logins, with the second of these messages.
        let message = format!("{server} does not accept more logins at the moment");
        (codes::SERVER_BUSY, message)
    } else if lines.has_any(&[
        "kex_exchange_identification",
        "Connection closed by",
        "Connection reset by",
    ]) {
        let message = format!("{server} closed the connection before the login");
        (codes::SERVER_HUNG_UP, message)
    } else {
        return None;
    };
    Some(StageError::new(code, message))
}
