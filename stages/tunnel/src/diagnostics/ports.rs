//! Checks which ports of the range are free, in use, or blocked by a firewall.

use std::time::Duration;

use futures::stream::{self, StreamExt};
use protocol::PortRange;

use crate::arrival::ArrivalError;
use crate::forward::ForwardSpec;
use crate::ssh::{ListenError, Refusal, SshSession};

/// Of a wider range this many ports are checked, evenly spread.
const LOOKED_AT: usize = 128;
const SIDE_BY_SIDE: usize = 16;
/// A connection takes one round trip. If nothing answers, a firewall drops it.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);
/// More ports in one line are not readable.
const NAMED: usize = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PortState {
    /// Free, and a visitor from outside arrived, if one was sent.
    Free,
    Taken,
    /// Free, but the visitor reached another program, which has the port on another address.
    Elsewhere,
    /// Free, but no visitor arrives.
    Closed,
    NotPermitted,
    /// The server did not answer.
    Unknown,
}

/// The states of the checked ports.
#[derive(Debug, Default)]
pub(super) struct PortSurvey {
    all: usize,
    found: Vec<(u16, PortState)>,
    pub(super) was_visited: bool,
}

/// Requests each port, visits it if `visit` is set, and releases it. `counted` gets the progress.
pub(super) async fn survey_ports(
    session: &SshSession,
    spec: &ForwardSpec,
    visit: bool,
    counted: impl Fn(usize, usize),
) -> PortSurvey {
    let chosen = sample(spec.range);
    let total = chosen.len();
    let looking = stream::iter(chosen).map(|port| async move {
        let found = probe_port(session, spec, visit, port).await;
        session.stop_listening(port).await;
        (port, found)
    });
    let mut looking = looking.buffered(SIDE_BY_SIDE);
    let mut found = Vec::new();
    while let Some(port) = looking.next().await {
        found.push(port);
        if found.len() % (2 * SIDE_BY_SIDE) == 0 && found.len() < total {
            counted(found.len(), total);
        }
    }
    PortSurvey {
        all: usize::from(spec.range.last - spec.range.first) + 1,
        found,
        was_visited: visit,
    }
}

async fn probe_port(session: &SshSession, spec: &ForwardSpec, visit: bool, port: u16) -> PortState {
    match session.listen(port, &spec.local_end()).await {
        Ok(()) if !visit => return PortState::Free,
        Ok(()) => {}
        Err(ListenError::Refused(Refusal::Taken)) => return PortState::Taken,
        Err(ListenError::Refused(_)) => return PortState::NotPermitted,
        Err(ListenError::Failed(_)) => return PortState::Unknown,
    }
    let mut prober = spec.prober(session);
    prober.patience = PATIENCE;
    match prober.recheck(port).await {
        Ok(()) => PortState::Free,
        Err(ArrivalError::Elsewhere) => PortState::Elsewhere,
        Err(ArrivalError::Unreachable(_)) => PortState::Closed,
    }
}

/// Both ends, and others evenly between them.
fn sample(range: PortRange) -> Vec<u16> {
    let (first, last) = (usize::from(range.first), usize::from(range.last));
    let steps = (last - first).min(LOOKED_AT - 1);
    (0..=steps)
        .map(|step| first + (last - first) * step / steps.max(1))
        .filter_map(|port| u16::try_from(port).ok())
        .collect()
}

impl PortSurvey {
    fn with_state(&self, kind: PortState) -> Vec<u16> {
        let ports = self.found.iter().filter(|(_, found)| *found == kind);
        ports.map(|(port, _)| *port).collect()
    }

    /// The first port through which a visitor arrived.
    pub(super) fn first_open(&self) -> Option<u16> {
        let open = self.with_state(PortState::Free).first().copied();
        open.filter(|_| self.was_visited)
    }

    pub(super) fn has(&self, kind: PortState) -> bool {
        !self.with_state(kind).is_empty()
    }

    pub(super) fn some_are_closed(&self) -> bool {
        self.has(PortState::Closed) || self.has(PortState::Elsewhere)
    }

    /// For example `1001 ports, 128 checked: 126 free and open, 2 in use (8003-8004)`.
    pub(super) fn describe(&self) -> String {
        let free = match self.was_visited {
            true => "free and open",
            false => "free",
        };
        let kinds = [
            (PortState::Free, free),
            (PortState::Taken, "in use"),
            (PortState::Elsewhere, "in use on the public address"),
            (PortState::Closed, "blocked between here and the server"),
            (PortState::NotPermitted, "not permitted to this account"),
            (PortState::Unknown, "without an answer from the server"),
        ];
        let described: Vec<String> = kinds
            .into_iter()
            .filter_map(|(kind, words)| {
                let ports = self.with_state(kind);
                match (ports.len(), kind) {
                    (0, _) => None,
                    (n, PortState::Free) => Some(format!("{n} {words}")),
                    (n, _) => Some(format!("{n} {words} ({})", named(&ports))),
                }
            })
            .collect();
        let looked_at = match self.found.len() < self.all {
            true => format!(", {} checked", self.found.len()),
            false => String::new(),
        };
        let ports = match self.all {
            1 => "1 port".to_owned(),
            all => format!("{all} ports"),
        };
        format!("{ports}{looked_at}: {}", described.join(", "))
    }
}

/// `8003, 8010-8012 and 3 more`.
fn named(ports: &[u16]) -> String {
    let mut runs: Vec<(u16, u16)> = Vec::new();
    for port in ports {
        match runs.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(*port) => *last = *port,
            _ => runs.push((*port, *port)),
        }
    }
    let shown = runs
        .iter()
        .take(NAMED)
        .map(|(first, last)| match first == last {
            true => first.to_string(),
            false => format!("{first}-{last}"),
        });
    let mut text = shown.collect::<Vec<_>>().join(", ");
    let left: usize = runs
        .iter()
        .skip(NAMED)
        .map(|(first, last)| usize::from(last - first) + 1)
        .sum();
    if left > 0 {
        text += &format!(" and {left} more");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: u16, last: u16) -> PortRange {
        PortRange { first, last }
    }

    #[test]
    fn all_ports_of_a_narrow_range_and_a_sample_of_a_wide_one_are_checked() {
        assert_eq!(sample(range(7, 7)), [7]);
        assert_eq!(sample(range(8000, 8003)), [8000, 8001, 8002, 8003]);
        let wide = sample(range(1, 65535));
        assert_eq!((wide.len(), wide[0], wide[127]), (LOOKED_AT, 1, 65535));
        assert!(wide.windows(2).all(|w| w[0] < w[1]));
    }

    #[test]
    fn adjacent_ports_are_shown_as_a_range_and_the_rest_is_counted() {
        assert_eq!(named(&[8003, 8010, 8011, 8012]), "8003, 8010-8012");
        let odd: Vec<u16> = (0..12).map(|n| 2 * n).collect();
        assert_eq!(named(&odd), "0, 2, 4, 6, 8, 10, 12, 14 and 4 more");
        assert_eq!(named(&[65534, 65535]), "65534-65535");
    }
}
