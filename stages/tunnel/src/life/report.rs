//! What is said of the ports that are ours.

use std::time::Instant;

use protocol::StageError;

use super::Life;
use crate::claim::{Claimed, Proof};
use crate::outputs::{Forwarded, Outputs};

impl Life<'_> {
    /// Whether every proof is as good as the user wants it.
    pub(super) fn accept(&self, claims: Vec<Claimed>) -> Result<Vec<Claimed>, StageError> {
        let mut accepted = self.ways.iter().zip(claims);
        accepted.try_fold(Vec::new(), |mut all, (way, claimed)| {
            all.push(way.accept(claimed)?);
            Ok(all)
        })
    }

    pub(super) async fn ready(&mut self, claims: &[Claimed]) -> Result<(), StageError> {
        for (way, claimed) in self.ways.iter().zip(claims) {
            let at = format!("{}:{}", way.public_host, claimed.port);
            match claimed.proof {
                Proof::Changed => self.cx.warn(format!(
                    "unverified: connections to {at} arrive here, but their source port is changed on the way and local port {} is in use, so they may have been somebody else's",
                    way.local_port
                )),
                Proof::OutOfReach => self.cx.warn(format!(
                    "unverified: this machine does not get to {at}, so only a pod can tell whether it leads here"
                )),
                Proof::Seen(_) | Proof::NotAskedFor => {}
            }
        }
        let ports: Vec<String> = claims.iter().map(|c| c.port.to_string()).collect();
        let (ports, are, them) = match &ports[..] {
            [port] => (format!("port {port}"), "is", "it"),
            ports => (format!("ports {}", ports.join(", ")), "are", "them"),
        };
        if self.is_open_to_all(claims).await {
            let host = self.ways.first().map_or("", |way| &way.public_host);
            self.cx.warn(format!(
                "{ports} of {host} {are} open to whoever can reach {them}; narrow it with bind_address, a firewall or PermitListen",
            ));
        }
        self.cx.ready(self.outputs(claims)?).await
    }

    /// As far as it was asked for, and, where the user asked for less, as far as the server tells: with `GatewayPorts yes`
    /// it takes all addresses whatever is asked for.
    async fn is_open_to_all(&mut self, claims: &[Claimed]) -> bool {
        let (Some(session), Some(main)) = (&self.session, claims.first()) else {
            return false;
        };
        if session.wants_all_addresses() {
            return true;
        }
        let wider = session.listening(main.port).await.on_all_addresses();
        if wider && !self.told_wider {
            self.told_wider = true;
            self.cx.warn(format!(
                "{} listens on all its addresses, not on {} alone: it needs `GatewayPorts clientspecified` in sshd_config for that",
                session.target(),
                session.bind_address
            ));
        }
        wider
    }

    pub(super) fn outputs(&self, claims: &[Claimed]) -> Result<Outputs, StageError> {
        let (Some(way), Some((main, beside))) = (self.ways.first(), claims.split_first()) else {
            return Err(StageError::internal("no port to report"));
        };
        let forwards = self.config.forwards.iter().zip(beside);
        let forwards = forwards.map(|(forward, claimed)| {
            let forwarded = Forwarded {
                port: claimed.port,
                local_port: claimed.local_port,
                verified: claimed.proof.verified(),
            };
            (forward.name(), forwarded)
        });
        Ok(Outputs {
            host: way.public_host.clone(),
            port: main.port,
            scheme: self.config.scheme,
            ssh_host: self.resolved.host.clone(),
            local_port: main.local_port,
            verified: main.proof.verified(),
            forwards: forwards.collect(),
        })
    }

    pub(super) fn told_back(&self, lost_at: Instant) {
        let seconds = lost_at.elapsed().as_secs_f64();
        self.cx.info(format!("ready again after {seconds:.1} s"));
    }
}
