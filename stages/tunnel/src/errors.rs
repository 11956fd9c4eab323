//! The errors of ports: each with its own code and hint.

use std::io;

use protocol::StageError;

use crate::arrival::ArrivalError;
use crate::codes;
use crate::config::Verify;
use crate::forward::ForwardSpec;
use crate::guard::State;
use crate::ssh::{Listeners, Refusal, SshSession};

/// The ports that the server refused.
#[derive(Debug, Default)]
pub(crate) struct RefusedPorts {
    first: Option<u16>,
    taken: usize,
    not_permitted: usize,
}

impl RefusedPorts {
    pub(crate) fn add(&mut self, port: u16, refusal: Refusal) {
        self.first.get_or_insert(port);
        match refusal {
            Refusal::Taken => self.taken += 1,
            Refusal::NotPermitted | Refusal::Disabled => self.not_permitted += 1,
        }
    }

    /// No port was refused because it is in use.
    pub(crate) fn are_permanent(&self) -> bool {
        self.taken == 0 && self.not_permitted > 0
    }

    fn only(&self) -> Option<u16> {
        self.first.filter(|_| self.taken + self.not_permitted == 1)
    }
}

pub(crate) fn forbidden(session: &SshSession) -> StageError {
    let message = format!(
        "{} does not allow this user to forward ports",
        session.server
    );
    StageError::new(codes::FORWARDING_FORBIDDEN, message)
}

pub(crate) fn not_permitted(spec: &ForwardSpec, session: &SshSession) -> StageError {
    let (range, server) = (spec.range, &session.server);
    let message = format!("{server} does not allow this user to listen on any port of {range}");
    StageError::new(codes::PORTS_NOT_PERMITTED, message)
}

pub(crate) fn none_free(
    spec: &ForwardSpec,
    session: &SshSession,
    refusals: &RefusedPorts,
) -> StageError {
    let (range, server) = (spec.range, &session.server);
    if let (Some(port), true) = (refusals.only(), range.first < range.last) {
        let message = format!("{server} refuses port {port}: another program listens there");
        return StageError::new(codes::PORT_TAKEN, message);
    }
    let message = format!("{server} has no free port in {range}");
    StageError::new(codes::PORT_RANGE_EXHAUSTED, message).cause(format!(
        "{} in use, {} not permitted",
        refusals.taken, refusals.not_permitted
    ))
}

/// The server may still hold our earlier session, and the account cannot end it.
pub(crate) fn held_by_ghost(session: &SshSession, port: u16) -> StageError {
    let message = format!(
        "{} refuses port {port}: it may still hold our earlier session, and this account cannot end it",
        session.server
    );
    StageError::new(codes::GHOST_HOLDS_PORT, message)
}

/// The server listens, but visitors reach another program. Its listening addresses show why.
pub(crate) async fn elsewhere(spec: &ForwardSpec, session: &SshSession, port: u16) -> StageError {
    let server = &session.server;
    let listening = session.listening(port).await;
    if session.wants_all_addresses() && listening.on_loopback_beside_others() {
        let message = format!(
            "{server} listens on its loopback address only, and another program has {}:{port}",
            spec.public_host
        );
        return gateway_ports_off(message);
    }
    if session.wants_all_addresses() && !spec.has_separate_host && listening.on_both_families() {
        let message = format!(
            "{server} listens on IPv6 only: another program has port {port} there on IPv4, where visitors arrive"
        );
        return StageError::new(codes::IPV6_ONLY, message);
    }
    arrives_elsewhere(spec, port)
}

fn arrives_elsewhere(spec: &ForwardSpec, port: u16) -> StageError {
    let message = format!(
        "{}:{port} accepts connections, but they do not arrive in this ssh session",
        spec.public_host
    );
    StageError::new(codes::ARRIVES_ELSEWHERE, message)
}

fn gateway_ports_off(message: String) -> StageError {
    StageError::new(codes::GATEWAY_PORTS_OFF, message)
}

pub(crate) fn unverified(spec: &ForwardSpec, port: u16) -> StageError {
    let at = format!("{}:{port}", spec.public_host);
    let (message, hint) = match spec.verify {
        Verify::Origin => (
            format!(
                "the origin does not show whether {at} leads here: the source port is rewritten on the way"
            ),
            "set verify to nonce, or to auto, which accepts either",
        ),
        _ => (
            format!(
                "cannot prove that {at} leads here: local port {} is in use",
                spec.local_port
            ),
            "start the tunnel before the master; or set verify to auto, which skips this proof",
        ),
    };
    StageError::new(codes::UNVERIFIED, message).hint(hint)
}

/// The master on a guarded port lets these users in without a password.
pub(crate) fn open_master(port: u16, state: &State) -> StageError {
    let users = match state {
        State::Open(users) => users.as_slice(),
        _ => &[],
    };
    let named: Vec<String> = users.iter().map(|user| format!("`{user}`")).collect();
    let have = match users {
        [_] => "has a blank password",
        _ => "have blank passwords",
    };
    let message = format!(
        "the master on local port {port} lets anyone in: {} {have}; visitors are refused",
        named.join(" and ")
    );
    StageError::new(codes::OPEN_MASTER, message)
}

/// A pinned port is in use by another program.
pub(crate) fn pinned(why: &StageError) -> StageError {
    let message = "the port is not available again, and port_policy is pinned";
    StageError::new(codes::PINNED_PORT_LOST, message).cause(why.message.clone())
}

/// The port no longer leads here although the ssh connection is up.
pub(crate) fn closed(spec: &ForwardSpec, port: u16, error: &ArrivalError) -> StageError {
    match error {
        ArrivalError::Elsewhere => arrives_elsewhere(spec, port),
        ArrivalError::Unreachable(source) => {
            let message = format!("cannot connect to {}:{port} any longer", spec.public_host);
            StageError::new(codes::PORT_UNREACHABLE, message)
                .hint("check this machine's network and the server's firewall")
                .source(source)
        }
    }
}

/// The server listens, but this machine does not reach the port.
pub(crate) fn unreachable(
    spec: &ForwardSpec,
    session: &SshSession,
    port: u16,
    listening: &Listeners,
    error: &io::Error,
) -> StageError {
    let at = format!("{}:{port}", spec.public_host);
    if listening.on_loopback_only() {
        return loopback_only(session, &at).source(error);
    }
    let message = format!("cannot connect to {at}, which should lead here");
    closed_on_the_way(message, spec).source(error)
}

/// The server listens on loopback alone, but pods use another address.
pub(crate) fn loopback_only(session: &SshSession, at: &str) -> StageError {
    gateway_ports_off(format!(
        "{} listens on its loopback address only, so other machines cannot connect to {at}",
        session.server
    ))
}

/// No port that the server grants lets a visitor through.
pub(crate) fn all_closed(spec: &ForwardSpec) -> StageError {
    let (range, host) = (spec.range, &spec.public_host);
    let message = format!("cannot connect to any port of {range} that {host} has free");
    closed_on_the_way(message, spec)
}

fn closed_on_the_way(message: String, spec: &ForwardSpec) -> StageError {
    StageError::new(codes::PORT_UNREACHABLE, message)
        .hint(format!(
            "open ports {} in the server's firewall; check public_host, and `GatewayPorts clientspecified` in \
          sshd_config; if pods reach the port and this machine does not, set verify to off",
            spec.range
        ))
}
