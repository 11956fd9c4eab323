//! Builds outputs and warnings for the bound ports.

use std::time::{Duration, Instant};

use protocol::StageError;
use tokio::time::timeout;

use super::Supervisor;
use crate::arrival::Proof;
use crate::forward::{BoundPort, Forward};
use crate::outputs::{Forwarded, Outputs};

/// How long `ready` waits until the ledger names the server's process. A shell answers within milliseconds.
const NOTE: Duration = Duration::from_millis(300);

impl Supervisor<'_> {
    fn bound(&self) -> impl Iterator<Item = (&Forward, BoundPort)> {
        self.forwards.iter().filter_map(|f| Some((f, f.bound?)))
    }

    pub(super) async fn ready(&mut self) -> Result<(), StageError> {
        for (Forward { spec, .. }, bound) in self.bound() {
            let at = format!("{}:{}", spec.public_host, bound.port);
            match bound.proof {
                Proof::OriginRewritten => self.cx.warn(format!(
                    "unverified: connections to {at} arrive here, but their source port is rewritten on the way and local port {} is in use, so they may be other visitors'",
                    spec.local_port
                )),
                Proof::Unreachable => self.cx.warn(format!(
                    "unverified: this machine does not reach {at}, so only a pod can test whether it leads here"
                )),
                Proof::Proven(_) | Proof::NotRequested => {}
            }
        }
        let ports: Vec<u16> = self.bound().map(|(_, bound)| bound.port).collect();
        if self.is_open_to_all().await? {
            let shown: Vec<String> = ports.iter().map(u16::to_string).collect();
            let (ports, are, them) = match &shown[..] {
                [port] => (format!("port {port}"), "is", "it"),
                ports => (format!("ports {}", ports.join(", ")), "are", "them"),
            };
            let host = &self.forwards[0].spec.public_host;
            self.cx.warn(format!(
                "{ports} of {host} {are} open to every machine that can reach {them}; restrict access with bind_address or a firewall",
            ));
        }
        let outputs = self.outputs()?;
        self.memory.note(self.cx, &outputs)?;
        self.cx.ready(outputs).await?;
        self.report_guards(true);
        Ok(())
    }

    /// Whether the server listens on all its addresses: if we request that, or if the server shows it, since with
    /// `GatewayPorts yes` it ignores the requested address.
    /// Meanwhile the server's process is noted.
    async fn is_open_to_all(&mut self) -> Result<bool, StageError> {
        let (Some(session), Some(own)) = (&self.session, self.forwards[0].bound) else {
            return Ok(false);
        };
        let greeting = async {
            match self.ghosts.is_noted() {
                true => None,
                false => timeout(NOTE, session.greeting()).await.ok(),
            }
        };
        let is_requested = session.wants_all_addresses();
        let listens =
            async { !is_requested && session.listening(own.port).await.on_all_addresses() };
        let (greeting, wider) = tokio::join!(greeting, listens);
        if wider && !self.warned_wider_bind {
            self.warned_wider_bind = true;
            self.cx.warn(format!(
                "{} listens on all its addresses, not on {} alone: set `GatewayPorts clientspecified` in its sshd_config for that",
                session.server,
                session.bind_address
            ));
        }
        if let Some(greeting) = greeting {
            self.note(&greeting)?;
        }
        Ok(is_requested || wider)
    }

    pub(super) fn outputs(&self) -> Result<Outputs, StageError> {
        let forwarded = |(forward, bound): (&Forward, BoundPort)| Forwarded {
            port: bound.port,
            local_port: forward.spec.local_port,
            verified: bound.proof.verified(),
        };
        let named = |bound: (&Forward, BoundPort)| Some((bound.0.name.clone()?, forwarded(bound)));
        let own = self.bound().next().map(forwarded);
        let own = own.ok_or_else(|| StageError::internal("no port to report"))?;
        Ok(Outputs {
            host: self.forwards[0].spec.public_host.clone(),
            port: own.port,
            scheme: self.config.scheme,
            ssh_host: self.resolved.host.clone(),
            local_port: own.local_port,
            verified: own.verified,
            forwards: self.bound().filter_map(named).collect(),
        })
    }

    /// A server reserves no port. The ports are in the outputs, and the next run asks for them first.
    pub(super) fn say_what_is_free(&self) {
        let ports: Vec<String> = self.bound().map(|(_, b)| b.port.to_string()).collect();
        if self.cx.is_lasting() && !ports.is_empty() {
            self.cx.info(format!(
                "the next run asks {} for port {} first; until then another program may take it",
                self.resolved.host,
                ports.join(", ")
            ));
        }
    }

    pub(super) fn log_recovery(&self, lost_at: Instant) {
        let seconds = lost_at.elapsed().as_secs_f64();
        self.cx.info(format!("ready again after {seconds:.1} s"));
    }
}
