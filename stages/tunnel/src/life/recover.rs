//! When it is down: the same ports again, for ever.

use std::time::{Duration, Instant};

use protocol::StageError;
use tokio::time::timeout;

use super::Life;
use crate::backoff::Backoff;
use crate::choices::PortPolicy;
use crate::claim::{Claimed, Unclaimed};
use crate::diagnosis;
use crate::ssh::Socket;

/// How long to insist on a port that somebody else has,
const KEEP_PORT: Duration = Duration::from_secs(60);
/// and on one that our own earlier session may still have.
const OUTWAIT_GHOST: Duration = Duration::from_secs(60 * 60);

impl Life<'_> {
    /// Tries for ever: on the same ports, until somebody else has had the tunnel's own for too long. The port of another
    /// forward is replaced as soon as somebody else has it.
    pub(super) async fn recover(
        &mut self,
        socket: &Socket,
        before: Vec<Claimed>,
    ) -> Result<Vec<Claimed>, StageError> {
        let mut backoff = Backoff::up_to(self.config.reconnect_pause.duration());
        let mut told = String::new();
        let mut port_lost: Option<(Instant, StageError)> = None;
        let ports: Vec<Option<u16>> = before.iter().map(|c| Some(c.port)).collect();
        loop {
            self.pause(&mut backoff, &told).await;
            let mut choices = self.choices(&ports)?;
            match &port_lost {
                Some((at, why)) if at.elapsed() >= self.patience() => {
                    if self.config.port_policy == PortPolicy::Pinned {
                        return Err(diagnosis::pinned(why));
                    }
                }
                _ => choices[0].truncate(1),
            }
            let unclaimed = match self.attempt(socket, choices).await {
                Ok(claims) => match self.recovered(&before, claims) {
                    Ok(claims) => {
                        self.tell_new_ports(&before, &claims, port_lost.map(|(_, why)| why));
                        return Ok(claims);
                    }
                    Err(error) => error.into(),
                },
                Err(unclaimed) => unclaimed,
            };
            let Unclaimed {
                error,
                ports_are_lost,
            } = unclaimed;
            if ports_are_lost {
                let at = port_lost.map_or_else(Instant::now, |(at, _)| at);
                port_lost = Some((at, error.clone()));
            }
            if told != error.code {
                told.clone_from(&error.code);
                self.cx.degraded(error);
            }
        }
    }

    /// Until it is worth another attempt.
    async fn pause(&self, backoff: &mut Backoff, told: &str) {
        let network = async {
            match told {
                "tunnel.server_unreachable" | "tunnel.server_refused" | "tunnel.server_timeout" => {
                    self.network.returned().await;
                }
                // The server answers, and says no.
                _ => self.network.changed().await,
            }
        };
        if timeout(backoff.next(), network).await.is_ok() {
            backoff.begin_anew();
        }
    }

    fn patience(&self) -> Duration {
        match self.config.keep_port {
            Some(seconds) => seconds.duration(),
            None if self.ghosts.may_hold_the_port() => OUTWAIT_GHOST,
            None => KEEP_PORT,
        }
    }

    /// What holds from now on. The proof of then stands for a port that we have again, even where the master is now in the
    /// way of another proof: other outputs would restart it.
    fn recovered(
        &mut self,
        before: &[Claimed],
        claims: Vec<Claimed>,
    ) -> Result<Vec<Claimed>, StageError> {
        let mut held = Vec::new();
        for ((way, before), claimed) in self.ways.iter().zip(before).zip(claims) {
            held.push(match before.port == claimed.port {
                true => *before,
                false => way.accept(claimed)?,
            });
        }
        if held.first() == before.first() {
            self.ghosts.laid();
        }
        Ok(held)
    }

    fn tell_new_ports(&self, before: &[Claimed], claims: &[Claimed], why: Option<StageError>) {
        let why = why.map_or_else(String::new, |why| format!(": {}", why.message));
        for (before, now) in before.iter().zip(claims) {
            if before.port != now.port {
                self.cx.warn(format!(
                    "port {} could not be had again, it is {} now{why}",
                    before.port, now.port
                ));
            }
        }
    }
}
