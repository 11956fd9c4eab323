//! A forward leads from a port of the server to a port of this machine.

use std::sync::Arc;
use std::time::Duration;

use protocol::PortRange;
use protocol::identity::Identity;

use crate::arrival::{self, Prober, Proof};
use crate::config::{Config, PortPolicy, Verify};
use crate::guard::{Guard, Guards};
use crate::memory::Ports;
use crate::ssh::{LocalEnd, Resolved, SshSession};

/// Time limit of a connection that may fail.
const MAYBE_UNREACHABLE: Duration = Duration::from_secs(2);

/// A forward and its port.
#[derive(Clone, Debug)]
pub(crate) struct Forward {
    /// Name in the outputs; the tunnel's own forward has none.
    pub(crate) name: Option<String>,
    pub(crate) spec: ForwardSpec,
    /// The port that it used last: in this run, or in the previous run on this server.
    before: Option<u16>,
    /// The port to try first if there is no earlier one.
    first: u16,
    pub(crate) bound: Option<BoundPort>,
}

/// A port of the server that leads here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BoundPort {
    pub(crate) port: u16,
    pub(crate) proof: Proof,
}

impl Forward {
    /// The tunnel's own forward, then one per entry of `forwards`. `previous` has the ports of the previous run.
    pub(crate) fn all(
        config: &Config,
        resolved: &Resolved,
        previous: Option<Ports>,
        guards: &Guards,
        identity: &Identity,
    ) -> Vec<Forward> {
        let previous = previous.filter(|ports| ports.server == resolved.host);
        let own = Forward {
            name: None,
            spec: ForwardSpec::new(config, resolved),
            before: previous.as_ref().map(|ports| ports.port),
            first: first_choice(config.remote_port_range, identity, ""),
            bound: None,
        };
        let mut all = vec![own];
        all[0].spec.guard = guards.of(config.local_port);
        for forward in &config.forwards {
            let name = forward.name();
            let before = previous
                .as_ref()
                .and_then(|ports| ports.forwards.get(&name));
            let mut spec = all[0].spec.clone();
            spec.local_port = forward.local_port;
            spec.guard = guards.of(forward.local_port);
            spec.range = forward.remote_port_range.unwrap_or(spec.range);
            all.push(Forward {
                before: before.copied(),
                first: first_choice(spec.range, identity, &name),
                spec,
                name: Some(name),
                bound: None,
            });
        }
        all
    }

    /// The ports to try, best first: the previous one or the instance's first choice, then all others unless only the
    /// previous one is allowed.
    pub(crate) fn ports(&self, policy: PortPolicy, insist: bool) -> Vec<u16> {
        match self.before {
            Some(port) if insist || policy == PortPolicy::Pinned => vec![port],
            before => self.spec.shuffled_ports(before.or(Some(self.first))),
        }
    }

    /// Records the claimed port. Returns the previous port if it was another one.
    pub(crate) fn bind(&mut self, bound: BoundPort) -> Option<u16> {
        self.before = Some(bound.port);
        let before = self.bound.replace(bound)?;
        (before.port != bound.port).then_some(before.port)
    }
}

/// The port that an instance tries first. Another one seldom has the same: a server reserves no port, and tasks may still
/// look for another user's master at a port that is free at the moment.
fn first_choice(range: PortRange, identity: &Identity, name: &str) -> u16 {
    let ports = u64::from(range.last - range.first) + 1;
    range.first + (identity.hash(name) % ports) as u16
}

/// The config of a forward.
#[derive(Clone, Debug)]
pub(crate) struct ForwardSpec {
    pub(crate) public_host: String,
    pub(crate) local_port: u16,
    /// Examines the local port, and receives its visitors.
    pub(crate) guard: Option<Arc<Guard>>,
    pub(crate) range: PortRange,
    pub(crate) verify: Verify,
    /// Pods use another address than ssh. This machine need not reach it.
    pub(crate) has_separate_host: bool,
}

impl ForwardSpec {
    /// The tunnel's own forward.
    pub(crate) fn new(config: &Config, resolved: &Resolved) -> ForwardSpec {
        let other = resolved.separate_public_host(config);
        ForwardSpec {
            public_host: other.unwrap_or(&resolved.host).to_owned(),
            local_port: config.local_port,
            guard: None,
            range: config.remote_port_range,
            verify: config.verify,
            has_separate_host: other.is_some(),
        }
    }

    pub(crate) fn prober(&self, session: &SshSession) -> Prober {
        Prober {
            host: self.public_host.clone(),
            local_port: self.local_port,
            guard: self.guard.clone(),
            verify: self.verify,
            log: session.log.clone(),
            patience: match self.may_be_unreachable() {
                true => MAYBE_UNREACHABLE,
                false => arrival::CONNECT,
            },
        }
    }

    /// Where ssh's forward ends.
    pub(crate) fn local_end(&self) -> LocalEnd {
        match &self.guard {
            Some(guard) => LocalEnd::Socket(guard.socket.clone()),
            None => LocalEnd::Port(self.local_port),
        }
    }

    /// Whether the public host is a loopback address, which visitors from this machine always reach.
    pub(crate) async fn leads_to_loopback(&self) -> bool {
        let addresses = tokio::net::lookup_host((self.public_host.as_str(), 0)).await;
        addresses.is_ok_and(|mut addresses| addresses.any(|a| a.ip().is_loopback()))
    }

    pub(crate) fn is_verified(&self) -> bool {
        self.verify != Verify::Off
    }

    /// All ports of the range in random order, `first_choice` first.
    pub(crate) fn shuffled_ports(&self, first_choice: Option<u16>) -> Vec<u16> {
        let mut ports: Vec<u16> = (self.range.first..=self.range.last).collect();
        fastrand::shuffle(&mut ports);
        if let Some(at) = ports.iter().position(|p| Some(*p) == first_choice) {
            ports.swap(0, at);
        }
        ports
    }

    /// Whether the tunnel may be ready although this machine does not reach the port.
    pub(crate) fn may_be_unreachable(&self) -> bool {
        self.has_separate_host && self.verify == Verify::Auto
    }
}
