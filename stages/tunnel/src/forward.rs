//! What is forwarded: from a port of the server to one of this machine.

use std::time::Duration;

use protocol::{PortRange, StageError};

use crate::arrival::{self, Prober, Proof};
use crate::choices::{PortPolicy, Verify};
use crate::config::{self, Config};
use crate::outputs::Outputs;
use crate::ssh::{Resolved, Session};

/// How long to look for a way that need not be there.
const OUT_OF_REACH: Duration = Duration::from_secs(2);

/// A forward of the tunnel.
#[derive(Clone, Debug)]
pub(crate) struct Forward {
    /// Its name in the outputs; the tunnel's own has none.
    pub(crate) name: Option<String>,
    pub(crate) spec: ForwardSpec,
    /// The port that it had before: in this run, or in the one before on this server.
    before: Option<u16>,
    pub(crate) bound: Option<Bound>,
}

/// A port of the server that leads here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bound {
    pub(crate) port: u16,
    pub(crate) proof: Proof,
}

impl Forward {
    /// The tunnel's own first, then one for each of `forwards`. `previous` is what the run before reported.
    pub(crate) fn all(
        config: &Config,
        resolved: &Resolved,
        previous: Option<Outputs>,
    ) -> Vec<Forward> {
        let previous = previous.filter(|o| o.ssh_host == resolved.host);
        let own = Forward {
            name: None,
            spec: ForwardSpec::new(config, resolved),
            before: previous.as_ref().map(|o| o.port),
            bound: None,
        };
        let more = config.forwards.iter().map(|forward| {
            let name = forward.name();
            let before = previous.as_ref().and_then(|o| o.forwards.get(&name));
            Forward {
                spec: own.spec.beside(forward),
                before: before.map(|f| f.port),
                name: Some(name),
                bound: None,
            }
        });
        let more: Vec<Forward> = more.collect();
        std::iter::once(own).chain(more).collect()
    }

    /// The ports that it may have, best first: the one before, and all others unless that one alone will do.
    pub(crate) fn ports(&self, policy: PortPolicy, insist: bool) -> Result<Vec<u16>, StageError> {
        match self.before {
            Some(port) if insist || policy == PortPolicy::Pinned => Ok(vec![port]),
            before => self.spec.shuffled(before),
        }
    }

    /// It has this port from now on. Returns the one that it had until now, where that is another.
    pub(crate) fn bind(&mut self, bound: Bound) -> Option<u16> {
        self.before = Some(bound.port);
        let before = self.bound.replace(bound)?;
        (before.port != bound.port).then_some(before.port)
    }
}

/// What is known of a forward before the server has granted a port.
#[derive(Clone, Debug)]
pub(crate) struct ForwardSpec {
    pub(crate) public_host: String,
    pub(crate) local_port: u16,
    pub(crate) range: PortRange,
    pub(crate) verify: Verify,
    /// Pods use another address than ssh does. This machine need not get there.
    pub(crate) is_other_host: bool,
}

impl ForwardSpec {
    /// The tunnel's own.
    pub(crate) fn new(config: &Config, resolved: &Resolved) -> ForwardSpec {
        let other = resolved.other_host(config);
        ForwardSpec {
            public_host: other.unwrap_or(&resolved.host).to_owned(),
            local_port: config.local_port,
            range: config.remote_port_range,
            verify: config.verify,
            is_other_host: other.is_some(),
        }
    }

    /// That of one more forward.
    fn beside(&self, forward: &config::Forward) -> ForwardSpec {
        ForwardSpec {
            local_port: forward.local_port,
            range: forward.remote_port_range.unwrap_or(self.range),
            ..self.clone()
        }
    }

    pub(crate) fn prober(&self, session: &Session) -> Prober {
        Prober {
            host: self.public_host.clone(),
            local_port: self.local_port,
            verify: self.verify,
            log: session.log(),
            patience: match self.may_be_out_of_reach() {
                true => OUT_OF_REACH,
                false => arrival::CONNECT,
            },
        }
    }

    /// The same, whose ports are taken as the server grants them.
    pub(crate) fn unproven(&self) -> ForwardSpec {
        ForwardSpec {
            verify: Verify::Off,
            ..self.clone()
        }
    }

    /// Visitors from this machine get there, whoever else does.
    pub(crate) async fn leads_to_loopback(&self) -> bool {
        let addresses = tokio::net::lookup_host((self.public_host.as_str(), 0)).await;
        addresses.is_ok_and(|mut addresses| addresses.any(|a| a.ip().is_loopback()))
    }

    pub(crate) fn is_verified(&self) -> bool {
        self.verify != Verify::Off
    }

    /// Every port of the range in random order, `first_choice` before all others.
    pub(crate) fn shuffled(&self, first_choice: Option<u16>) -> Result<Vec<u16>, StageError> {
        shuffled(self.range, first_choice)
            .map_err(|e| StageError::internal(format!("no random numbers: {e}")))
    }

    /// That this machine does not get to the port proves nothing, and the user can live with that.
    pub(crate) fn may_be_out_of_reach(&self) -> bool {
        self.is_other_host && self.verify == Verify::Auto
    }
}

/// Every port of the range in random order, `first_choice` before all others.
fn shuffled(range: PortRange, first_choice: Option<u16>) -> Result<Vec<u16>, getrandom::Error> {
    let mut ports: Vec<u16> = (range.first..=range.last).collect();
    for i in (1..ports.len()).rev() {
        ports.swap(i, getrandom::u32()? as usize % (i + 1));
    }
    if let Some(at) = ports.iter().position(|p| Some(*p) == first_choice) {
        ports.swap(0, at);
    }
    Ok(ports)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_port_comes_first_and_every_port_comes_once() {
        let range = PortRange {
            first: 9300,
            last: 9400,
        };
        let ports = shuffled(range, Some(9317)).unwrap();
        assert_eq!(ports[0], 9317);
        let mut sorted = ports.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (9300..=9400).collect::<Vec<_>>());
        assert_ne!(ports[1..], sorted[1..]);
        let without = shuffled(range, Some(1)).unwrap();
        assert!(without.iter().all(|port| sorted.contains(port)));
    }
}
