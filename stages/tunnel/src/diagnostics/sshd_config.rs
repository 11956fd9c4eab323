//! The sshd_config lines that a tunnel needs on its server. docs/ssh-server.md has the reasons.

use protocol::PortRange;

/// More ports on one line are not readable.
const LISTED: usize = 32;

/// A block for the end of sshd_config. The lines for a dedicated account are commented out: the login may be an
/// admin's. Where the server forwards ports already, whatever allows it stays.
pub(super) fn block(user: &str, range: PortRange, forwards: bool) -> String {
    let ports: Vec<String> = (range.first..=range.last).map(|p| p.to_string()).collect();
    let permit_listen = match ports.len() {
        ..=LISTED => format!("PermitListen {}", ports.join(" ")),
        _ => format!(
            "PermitListen lists single ports, and {range} are many: narrow remote_port_range, or use a firewall"
        ),
    };
    let allow = match forwards {
        true => "",
        false => "\n    AllowTcpForwarding remote",
    };
    format!(
        "Match User {user}{allow}
    GatewayPorts clientspecified
    ClientAliveInterval 5
    ClientAliveCountMax 2
    # For an account that only runs tunnels, add:
    # AllowTcpForwarding remote
    # {permit_listen}
    # PermitOpen none
    # PermitTTY no
    # AllowAgentForwarding no
    # X11Forwarding no
    # PasswordAuthentication no"
    )
}
