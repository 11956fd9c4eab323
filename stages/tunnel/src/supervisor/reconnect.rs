//! Reconnects on the same ports until it succeeds.

use std::time::{Duration, Instant};

use protocol::{Codes, StageError};
use tokio::time::timeout;

use super::Supervisor;
use crate::backoff::Backoff;
use crate::codes;
use crate::config::PortPolicy;
use crate::errors;
use crate::ssh::Socket;

/// How long to wait for a port that another program has,
const KEEP_PORT: Duration = Duration::from_secs(60);
/// and for one that a ghost of ours may hold.
const OUTWAIT_GHOST: Duration = Duration::from_secs(60 * 60);
/// The server does not answer.
const NO_ANSWER: Codes = &[
    codes::SERVER_UNREACHABLE,
    codes::SERVER_REFUSED,
    codes::SERVER_TIMEOUT,
];

impl Supervisor<'_> {
    /// Retries forever on the same ports, until another program has held the tunnel's own for too long. The port of an
    /// extra forward is replaced as soon as another program has it.
    pub(super) async fn reconnect(&mut self, socket: &Socket) -> Result<(), StageError> {
        let mut backoff = Backoff::new(self.config.reconnect_pause.duration());
        let mut last: Option<StageError> = None;
        let mut port_lost: Option<(Instant, StageError)> = None;
        loop {
            self.pause(&mut backoff, last.as_ref()).await;
            let given_up = port_lost
                .as_ref()
                .filter(|(at, _)| at.elapsed() >= self.patience());
            if let (Some((_, why)), PortPolicy::Pinned) = (given_up, self.config.port_policy) {
                return Err(errors::pinned(why));
            }
            let insist = given_up.is_none();
            let unclaimed = match self.attempt(socket, insist).await {
                Ok(bound) => {
                    let moved = self.bind(bound);
                    self.warn_about_moved_ports(&moved, port_lost.map(|(_, why)| why));
                    return Ok(());
                }
                Err(unclaimed) => unclaimed,
            };
            let error = unclaimed.error;
            if unclaimed.port_conflict {
                let at = port_lost.map_or_else(Instant::now, |(at, _)| at);
                port_lost = Some((at, error.clone()));
            }
            if last.as_ref().is_none_or(|last| last.code != error.code) {
                self.cx.degraded(error.clone());
                last = Some(error);
            }
        }
    }

    /// Waits until another attempt makes sense.
    async fn pause(&self, backoff: &mut Backoff, last: Option<&StageError>) {
        let network = async {
            match last {
                Some(error) if error.is_any(NO_ANSWER) => self.network.returned().await,
                // The server answers and refuses.
                _ => self.network.changed().await,
            }
        };
        if timeout(backoff.next(), network).await.is_ok() {
            backoff.reset();
        }
    }

    fn patience(&self) -> Duration {
        match self.config.keep_port {
            Some(seconds) => seconds.duration(),
            None if self.ghosts.may_hold_port() => OUTWAIT_GHOST,
            None => KEEP_PORT,
        }
    }

    fn warn_about_moved_ports(&self, moved: &[(u16, u16)], why: Option<StageError>) {
        let why = why.map_or_else(String::new, |why| format!(": {}", why.message));
        for (before, now) in moved {
            self.cx.warn(format!(
                "port {before} is not available again; the port is {now} now{why}"
            ));
        }
    }
}
