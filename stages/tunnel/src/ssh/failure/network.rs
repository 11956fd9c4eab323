//! ssh's messages about the network.

use protocol::StageError;

use super::{Lines, Server};
use crate::codes;

/// A failed ProxyJump or ProxyCommand prints messages that could also be about the server.
pub(super) fn proxy(lines: &Lines, server: &Server) -> Option<StageError> {
    let message = format!("the proxy on the way to {server} let nobody through");
    let hint = format!(
        "the lines above are its own. A jump host can ask nobody for a passphrase here: its key has to be in the agent. \
         See whether ProxyJump or ProxyCommand of ssh_config works by hand: {}",
        server.debug_command()
    );
    let is_proxy = lines.has("UNKNOWN port 65535");
    is_proxy.then(|| StageError::new(codes::PROXY_FAILED, message).hint(hint))
}

pub(super) fn reaching(lines: &Lines, server: &Server) -> Option<StageError> {
    let (code, message) = if lines.has("Could not resolve hostname") {
        let message = format!("the ssh server {} has no address", server.host);
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
        let message = format!("{server} cannot be reached from here");
        (codes::SERVER_UNREACHABLE, message)
    } else if lines.has("Connection refused") {
        let message = format!("nothing listens at {server}");
        (codes::SERVER_REFUSED, message)
    } else if lines.has_any(&["Exceeded MaxStartups", "Not allowed at this time"]) {
        // 9.8 and later penalize an address after failed logins, with the second of these messages.
        let message = format!("{server} takes no more logins for the moment");
        (codes::SERVER_BUSY, message)
    } else if lines.has_any(&[
        "kex_exchange_identification",
        "Connection closed by",
        "Connection reset by",
    ]) {
        let message = format!("{server} hung up before anyone was logged in");
        (codes::SERVER_HUNG_UP, message)
    } else {
        return None;
    };
    Some(StageError::new(code, message))
}
