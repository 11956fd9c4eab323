//! Why no port is ours, or why the one that is leads nowhere: each its own error, with its mend.

use std::io;

use protocol::StageError;

use crate::arrival::NotArrived;
use crate::claim::Way;
use crate::config::Verify;
use crate::ssh::{Refusal, Session};

/// The ports that the server did not grant.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    first: Option<u16>,
    taken: usize,
    not_permitted: usize,
}

impl Refusals {
    pub(crate) fn add(&mut self, port: u16, refusal: Refusal) {
        self.first.get_or_insert(port);
        match refusal {
            Refusal::Taken => self.taken += 1,
            Refusal::NotPermitted | Refusal::Disabled => self.not_permitted += 1,
        }
    }

    /// No port was refused because somebody has it.
    pub(crate) fn are_for_good(&self) -> bool {
        self.taken == 0 && self.not_permitted > 0
    }

    fn only(&self) -> Option<u16> {
        self.first.filter(|_| self.taken + self.not_permitted == 1)
    }
}

pub(crate) fn forbidden(session: &Session) -> StageError {
    let message = format!("{} forbids this user to forward ports", session.target());
    StageError::new("tunnel.forwarding_forbidden", message).hint(
        "set `AllowTcpForwarding yes` in its sshd_config, and take no-port-forwarding or restrict off the key in \
         authorized_keys",
    )
}

pub(crate) fn not_permitted(way: &Way, session: &Session) -> StageError {
    let (range, server) = (way.range, session.target());
    let message = format!("{server} does not permit this user to listen on any port of {range}");
    StageError::new("tunnel.ports_not_permitted", message).hint(
        "use the ports that PermitListen in its sshd_config, or permitlisten in authorized_keys, allows",
    )
}

pub(crate) fn none_free(way: &Way, session: &Session, refusals: &Refusals) -> StageError {
    let (range, server) = (way.range, session.target());
    if let (Some(port), true) = (refusals.only(), range.first < range.last) {
        let message =
            format!("{server} does not give us port {port} again: somebody else listens there");
        return StageError::new("tunnel.port_taken", message)
            .hint("end what holds it there (ss -tlnp), or wait: after keep_port seconds another port is taken")
            .retryable(true);
    }
    let message = format!("{server} has no free port for us in {range}");
    StageError::new("tunnel.port_range_exhausted", message)
        .hint("widen remote_port_range, or end what holds these ports there (ss -tlnp)")
        .retryable(true)
        .cause(format!(
            "{} in use, {} not permitted",
            refusals.taken, refusals.not_permitted
        ))
}

/// The server has not missed our earlier session yet, as far as we know, and lets us do nothing about it.
pub(crate) fn held_by_a_ghost(session: &Session, port: u16) -> StageError {
    let message = format!(
        "{} does not give us port {port} again: it may still hold our earlier session, and this account cannot end it",
        session.target()
    );
    StageError::new("tunnel.ghost_holds_port", message)
        .hint(
            "wait: sshd notices after ClientAliveInterval × ClientAliveCountMax seconds (twice that in OpenSSH 9.2 to \
             9.4), without these after up to two hours; or have `ClientAliveInterval 5` and `ClientAliveCountMax 2` set in \
             its sshd_config, or let this account run commands",
        )
        .retryable(true)
}

pub(crate) fn elsewhere(way: &Way, port: u16) -> StageError {
    let message = format!(
        "{}:{port} accepts connections, but they do not arrive in this ssh session",
        way.public_host
    );
    StageError::new("tunnel.arrives_elsewhere", message)
        .hint("check that public_host is the ssh server itself; `ss -tlnp` there shows who else listens on this port")
        .retryable(true)
}

pub(crate) fn unverified(way: &Way, port: u16, verify: Verify) -> StageError {
    let at = format!("{}:{port}", way.public_host);
    let (message, hint) = match verify {
        Verify::Origin => (
            format!(
                "cannot tell by the origin whether {at} leads here: the source port is changed on the way"
            ),
            "set verify to nonce, or to auto, which takes either",
        ),
        _ => (
            format!(
                "cannot tell whether {at} leads here: local port {} is in use",
                way.local_port
            ),
            "start the tunnel before the master, or set verify to auto",
        ),
    };
    StageError::new("tunnel.unverified", message).hint(hint)
}

/// The port that must not change is somebody else's.
pub(crate) fn pinned(port: u16, why: &StageError) -> StageError {
    let message = format!("port {port} could not be had again, and port_policy is pinned");
    StageError::new("tunnel.pinned_port_lost", message)
        .hint("end what holds it on the server (ss -tlnp), allow more time with keep_port, or set port_policy to sticky")
        .retryable(true)
        .cause(why.message.clone())
}

/// The way is closed while the connection stands.
pub(crate) fn closed(way: &Way, port: u16, error: &NotArrived) -> StageError {
    match error {
        NotArrived::Elsewhere => elsewhere(way, port),
        NotArrived::Unreachable(source) => {
            let message = format!("cannot connect to {}:{port} any more", way.public_host);
            StageError::new("tunnel.port_unreachable", message)
                .hint("check this machine's network and the server's firewall")
                .retryable(true)
                .source(source)
        }
    }
}

/// The server listens, and we cannot get there: it knows on which address.
pub(crate) async fn unreachable(
    way: &Way,
    session: &Session,
    port: u16,
    error: &io::Error,
) -> StageError {
    let at = format!("{}:{port}", way.public_host);
    let sockets = session
        .output_of("cat /proc/net/tcp /proc/net/tcp6")
        .await
        .unwrap_or_default();
    if listens_on_loopback_only(&sockets, port) == Some(true) {
        let message = format!(
            "{} listens for us on its loopback address only, so nobody else can connect to {at}",
            session.target()
        );
        return StageError::new("tunnel.gateway_ports_off", message)
            .hint("set `GatewayPorts clientspecified` in the server's sshd_config and reload sshd; leave bind_address unset")
            .source(error);
    }
    let message = format!("cannot connect to {at}, which is to lead here");
    StageError::new("tunnel.port_unreachable", message)
        .hint(format!(
            "open ports {} in the server's firewall; check public_host, and `GatewayPorts clientspecified` in \
             sshd_config; where pods get there and this machine does not, set verify to off",
            way.range
        ))
        .retryable(true)
        .source(error)
}

/// Reads Linux's tables of sockets. `None` when they do not show the port.
fn listens_on_loopback_only(tables: &str, port: u16) -> Option<bool> {
    const LISTEN: &str = "0A";
    let wanted = format!("{port:04X}");
    let listeners: Vec<&str> = tables
        .lines()
        .filter_map(|line| {
            let mut fields = line.split_whitespace().skip(1);
            let (address, port) = fields.next()?.split_once(':')?;
            (port == wanted && fields.nth(1)? == LISTEN).then_some(address)
        })
        .collect();
    (!listeners.is_empty()).then(|| listeners.into_iter().all(is_loopback))
}

/// Four bytes at a time, in the server's own byte order.
fn is_loopback(address: &str) -> bool {
    match address.split_at_checked(24) {
        None => address.starts_with("7F") || address.ends_with("7F"),
        Some((start, end)) => {
            start.bytes().all(|b| b == b'0') && ["01000000", "00000001"].contains(&end)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLES: &str = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:2454 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1
   1: 00000000:2455 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1
   2: 0100007F:2456 0100007F:2454 01 00000000:00000000 00:00000000 00000000     0        0 1
  sl  local_address                         remote_address                        st tx_queue
   0: 00000000000000000000000001000000:2454 00000000000000000000000000000000:0000 0A 00000000:00000000
   1: 00000000000000000000000000000000:2457 00000000000000000000000000000000:0000 0A 00000000:00000000
   2: 00000000000000000000000001000000:2458 00000000000000000000000000000000:0000 0A 00000000:00000000
   3: B80D01200000000000000000010000A0:2458 00000000000000000000000000000000:0000 0A 00000000:00000000";

    #[test]
    fn the_server_tells_whether_it_listens_on_loopback_only() {
        assert_eq!(listens_on_loopback_only(TABLES, 0x2454), Some(true));
        assert_eq!(listens_on_loopback_only(TABLES, 0x2455), Some(false));
        assert_eq!(
            listens_on_loopback_only(TABLES, 0x2456),
            None,
            "connected is not listening"
        );
        assert_eq!(listens_on_loopback_only(TABLES, 0x2457), Some(false));
        assert_eq!(listens_on_loopback_only(TABLES, 0x2458), Some(false));
        assert_eq!(listens_on_loopback_only("", 0x2454), None);
    }
}
