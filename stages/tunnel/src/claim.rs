//! How a port of the server becomes ours: the server's own bind says whether it is free, a visitor from outside whether it
//! leads here.

use std::io;
use std::time::{Duration, Instant};

use protocol::StageError;
use tokio::task::JoinSet;

use crate::arrival::{NotArrived, Prober};
use crate::config::{Config, Verified, Verify};
use crate::port_range::PortRange;
use crate::ssh::{NotListening, Refusal, Resolved, Session};

/// Ports that were granted and lead elsewhere. More of them would tell nothing new.
const ELSEWHERE: usize = 3;
/// A granted port is proven within a few round trips. After that the next one is asked for too, and the first to be
/// proven wins: a server may well grant a port on `[::]` alone, while somebody else has it on IPv4.
const HEDGE: Duration = Duration::from_millis(30);

/// The way from a pod to this machine, but for the port.
#[derive(Clone, Debug)]
pub(crate) struct Way {
    pub(crate) public_host: String,
    pub(crate) local_port: u16,
    verify: Verify,
    range: PortRange,
}

/// A port that is ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Claimed {
    pub(crate) port: u16,
    pub(crate) verified: Verified,
}

/// No port is ours.
#[derive(Debug)]
pub(crate) struct Unclaimed {
    pub(crate) error: StageError,
    /// Somebody else has these ports: others may serve.
    pub(crate) ports_are_lost: bool,
}

impl From<StageError> for Unclaimed {
    fn from(error: StageError) -> Self {
        Unclaimed {
            error,
            ports_are_lost: false,
        }
    }
}

type Proof = (u16, Result<Verified, NotArrived>);

impl Way {
    pub(crate) fn new(config: &Config, resolved: &Resolved) -> Way {
        Way {
            public_host: config
                .public_host
                .clone()
                .unwrap_or_else(|| resolved.host.clone()),
            local_port: config.local_port,
            verify: config.verify,
            range: config.remote_port_range,
        }
    }

    pub(crate) fn prober(&self, session: &Session) -> Prober {
        Prober {
            host: self.public_host.clone(),
            local_port: self.local_port,
            log: session.log(),
        }
    }

    pub(crate) fn is_verified(&self) -> bool {
        self.verify != Verify::Off
    }

    /// Claims the first of these ports that the server grants and that leads here.
    pub(crate) async fn claim(
        &self,
        session: &Session,
        ports: Vec<u16>,
    ) -> Result<Claimed, Unclaimed> {
        let mut ports = ports.into_iter();
        let mut proofs: JoinSet<Proof> = JoinSet::new();
        let mut granted: Vec<u16> = Vec::new();
        let mut refusals = Refusals::default();
        let mut last_failure = None;
        loop {
            let mut hedge = HEDGE;
            if granted.len() < ELSEWHERE {
                let asked = Instant::now();
                match next_granted(session, &mut ports, &mut refusals).await? {
                    Some(port) if !self.is_verified() => {
                        return Ok(Claimed {
                            port,
                            verified: Verified::Unverified,
                        });
                    }
                    Some(port) => {
                        granted.push(port);
                        hedge += asked.elapsed() * 4;
                        let mut prober = self.prober(session);
                        proofs.spawn(async move { (port, prober.prove(port).await) });
                    }
                    None => hedge = Duration::MAX,
                }
            } else {
                hedge = Duration::MAX;
            }
            let Ok(proof) = tokio::time::timeout(hedge, proofs.join_next()).await else {
                continue;
            };
            match proof {
                Some(Ok((port, Ok(verified)))) => {
                    granted.retain(|p| *p != port);
                    release(session, &granted).await;
                    return self.accept(Claimed { port, verified });
                }
                Some(Ok((port, Err(NotArrived::Unreachable(error))))) => {
                    return Err(self.unreachable(session, port, &error).await.into());
                }
                Some(Ok((port, Err(NotArrived::Elsewhere)))) => last_failure = Some(port),
                Some(Err(e)) => {
                    return Err(StageError::internal(format!("a proof broke off: {e}")).into());
                }
                None => {
                    release(session, &granted).await;
                    return Err(match last_failure {
                        Some(port) => self.elsewhere(port),
                        None => self.none_granted(session, &refusals),
                    });
                }
            }
        }
    }

    fn accept(&self, claimed: Claimed) -> Result<Claimed, Unclaimed> {
        if claimed.verified == Verified::Unverified && self.verify == Verify::Require {
            let message = format!(
                "cannot tell whether {}:{} leads here: the source port is changed on the way, and local port {} is in use",
                self.public_host, claimed.port, self.local_port
            );
            return Err(StageError::new("tunnel.unverified", message)
                .hint("start the tunnel before the master, or set verify to auto")
                .into());
        }
        Ok(claimed)
    }

    fn none_granted(&self, session: &Session, refusals: &Refusals) -> Unclaimed {
        let (range, server) = (self.range, session.target());
        if let (Some(port), 1) = (refusals.first, refusals.taken + refusals.not_permitted) {
            let message =
                format!("{server} does not give us port {port}: somebody else listens there");
            let error = StageError::new("tunnel.port_taken", message)
                .hint(format!("end what holds it there (ss -tlnp), or allow more than one port in remote_port_range ({range})"))
                .retryable(true);
            return Unclaimed {
                error,
                ports_are_lost: true,
            };
        }
        if refusals.taken == 0 && refusals.not_permitted > 0 {
            let message =
                format!("{server} does not permit this user to listen on any port of {range}");
            return StageError::new("tunnel.ports_not_permitted", message)
                .hint("use the ports that PermitListen in its sshd_config, or permitlisten in authorized_keys, allows")
                .into();
        }
        let message = format!("{server} has no free port in {range} for us");
        let error = StageError::new("tunnel.port_range_exhausted", message)
            .hint("widen remote_port_range, or end what holds these ports there: ss -tlnp")
            .retryable(true)
            .cause(format!(
                "{} in use, {} not permitted",
                refusals.taken, refusals.not_permitted
            ));
        Unclaimed {
            error,
            ports_are_lost: true,
        }
    }

    /// The way is closed while the connection stands.
    pub(crate) fn closed(&self, port: u16, error: &NotArrived) -> StageError {
        let at = format!("{}:{port}", self.public_host);
        match error {
            NotArrived::Elsewhere => self.elsewhere(port).error,
            NotArrived::Unreachable(source) => StageError::new(
                "tunnel.port_unreachable",
                format!("cannot connect to {at} any more"),
            )
            .hint("check this machine's network and the server's firewall")
            .retryable(true)
            .source(source),
        }
    }

    fn elsewhere(&self, port: u16) -> Unclaimed {
        let at = format!("{}:{port}", self.public_host);
        let error = StageError::new(
            "tunnel.arrives_elsewhere",
            format!("{at} accepts connections, but they do not arrive in this ssh session"),
        )
        .hint("check that public_host is the ssh server itself; on the server, `ss -tlnp` shows who else listens there")
        .retryable(true);
        Unclaimed {
            error,
            ports_are_lost: true,
        }
    }

    /// The server listens, and we cannot get there: it knows on which address.
    async fn unreachable(&self, session: &Session, port: u16, error: &io::Error) -> StageError {
        let at = format!("{}:{port}", self.public_host);
        let table = session
            .output_of("cat /proc/net/tcp /proc/net/tcp6")
            .await
            .unwrap_or_default();
        if listens_on_loopback_only(&table, port) == Some(true) {
            let message = format!(
                "{} listens for us on its loopback address only, so pods cannot reach {at}",
                session.target()
            );
            return StageError::new("tunnel.gateway_ports_off", message)
                .hint("set `GatewayPorts clientspecified` in the server's /etc/ssh/sshd_config and reload sshd; and leave bind_address unset")
                .source(error);
        }
        StageError::new("tunnel.port_unreachable", format!("cannot connect to {at}, which is to lead here"))
            .hint(format!(
                "open ports {} in the server's firewall, check public_host, and that sshd_config has `GatewayPorts clientspecified`; if pods get there and this machine does not: verify: off",
                self.range
            ))
            .retryable(true)
            .source(error)
    }
}

#[derive(Debug, Default)]
struct Refusals {
    first: Option<u16>,
    taken: usize,
    not_permitted: usize,
}

/// The next port that the server grants; `None` when there are no more.
async fn next_granted(
    session: &Session,
    ports: &mut impl Iterator<Item = u16>,
    refusals: &mut Refusals,
) -> Result<Option<u16>, StageError> {
    for port in ports {
        match session.listen(port).await {
            Ok(()) => return Ok(Some(port)),
            Err(NotListening::Refused(Refusal::Disabled)) => return Err(forbidden(session)),
            Err(NotListening::Refused(Refusal::NotPermitted)) => refusals.not_permitted += 1,
            Err(NotListening::Refused(Refusal::Taken)) => refusals.taken += 1,
            Err(NotListening::Broken(error)) => return Err(error),
        }
        refusals.first.get_or_insert(port);
    }
    Ok(None)
}

fn forbidden(session: &Session) -> StageError {
    let message = format!("{} forbids this user to forward ports", session.target());
    StageError::new("tunnel.forwarding_forbidden", message)
        .hint("set `AllowTcpForwarding yes` in its sshd_config and take no-port-forwarding or restrict off the key in authorized_keys")
}

async fn release(session: &Session, ports: &[u16]) {
    for port in ports {
        session.give_back(*port).await;
    }
}

/// Reads Linux's table of sockets. `None` when it does not show the port.
fn listens_on_loopback_only(table: &str, port: u16) -> Option<bool> {
    const LISTEN: &str = "0A";
    let wanted = format!("{port:04X}");
    let addresses: Vec<&str> = table
        .lines()
        .filter_map(|line| {
            let mut fields = line.split_whitespace().skip(1);
            let (address, port) = fields.next()?.split_once(':')?;
            (port == wanted && fields.nth(1)? == LISTEN).then_some(address)
        })
        .collect();
    // Addresses are in the server's byte order.
    let is_loopback = |a: &&str| match a.len() {
        8 => a.ends_with("7F") || a.starts_with("7F"),
        _ => {
            a.ends_with("00000001")
                || a.ends_with("01000000") && a.starts_with("000000000000000000000000")
        }
    };
    (!addresses.is_empty()).then(|| addresses.iter().all(is_loopback))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:2454 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1
   1: 00000000:2455 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1
   2: 0100007F:2456 0100007F:2454 01 00000000:00000000 00:00000000 00000000     0        0 1
  sl  local_address                         remote_address                        st tx_queue
   0: 00000000000000000000000001000000:2454 00000000000000000000000000000000:0000 0A 00000000:00000000
   1: 00000000000000000000000000000000:2457 00000000000000000000000000000000:0000 0A 00000000:00000000";

    #[test]
    fn the_server_tells_whether_it_listens_on_loopback_only() {
        assert_eq!(listens_on_loopback_only(TABLE, 0x2454), Some(true));
        assert_eq!(listens_on_loopback_only(TABLE, 0x2455), Some(false));
        assert_eq!(
            listens_on_loopback_only(TABLE, 0x2456),
            None,
            "connected is not listening"
        );
        assert_eq!(listens_on_loopback_only(TABLE, 0x2457), Some(false));
        assert_eq!(listens_on_loopback_only("", 0x2454), None);
    }
}
