//! The lines of sshd_config that a tunnel wants of its server. docs/ssh-server.md has the reasons.

use protocol::PortRange;

/// More ports than that on one line help nobody.
const LISTED: usize = 32;

/// For the end of sshd_config. The lines of an account that has no other purpose are commented out: who logs in here may
/// be an admin.
pub(super) fn block(user: &str, range: PortRange) -> String {
    let ports: Vec<String> = (range.first..=range.last).map(|p| p.to_string()).collect();
    let permit_listen = match ports.len() {
        ..=LISTED => format!("PermitListen {}", ports.join(" ")),
        _ => format!(
            "PermitListen takes single ports; {range} are many: narrow remote_port_range, or leave it to a firewall"
        ),
    };
    format!(
        "Match User {user}
    AllowTcpForwarding yes
    GatewayPorts clientspecified
    ClientAliveInterval 5
    ClientAliveCountMax 2
    # For an account that does nothing else:
    # {permit_listen}
    # PermitOpen none
    # PermitTTY no
    # AllowAgentForwarding no
    # X11Forwarding no"
    )
}
