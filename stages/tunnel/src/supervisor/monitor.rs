//! Monitors the ports while the connection is up.

use std::convert::Infallible;
use std::time::Instant;

use protocol::StageError;
use tokio::time::MissedTickBehavior;

use super::Supervisor;
use crate::arrival::{Prober, Proof};
use crate::errors;
use crate::forward::ForwardSpec;

/// Two proofs in a row have to fail: one may have met a moment without network.
const FAILED_PROOFS: u32 = 2;

/// Fails with the first port that no longer leads here.
async fn recheck(proofs: &mut [(ForwardSpec, u16, Prober)]) -> Result<(), StageError> {
    for (spec, port, prober) in proofs {
        let proof = prober.recheck(*port).await;
        proof.map_err(|error| errors::closed(spec, *port, &error))?;
    }
    Ok(())
}

impl Supervisor<'_> {
    /// Monitors until the connection is lost. Reports a port that stops leading here, and its recovery.
    pub(super) async fn monitor(&mut self) -> Result<Infallible, StageError> {
        let outputs = self.outputs()?;
        let mut proofs = self.proofs();
        let mut ticks = tokio::time::interval(self.config.probe_interval.duration());
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.reset();
        let (mut failed, mut closed_at) = (0, Instant::now());
        let mut greeted = self.ghosts.is_noted();
        loop {
            let Some(session) = &mut self.session else {
                return Err(StageError::internal("no session to hold"));
            };
            let greeting = session.greeting();
            let guards = &mut self.guards;
            let is_proven = !proofs.is_empty();
            let next_proof = async {
                ticks.tick().await;
                recheck(&mut proofs).await
            };
            let proof = tokio::select! {
                lost = session.ended() => return Err(lost),
                proof = next_proof, if is_proven => proof,
                () = guards.examined() => {
                    if self.is_closed_again() && failed < FAILED_PROOFS {
                        self.cx.ready(outputs.clone()).await?;
                    }
                    self.report_guards(false);
                    continue;
                }
                greeting = greeting, if !greeted => {
                    greeted = true;
                    self.note(&greeting)?;
                    continue;
                }
            };
            match proof {
                Ok(()) if failed >= FAILED_PROOFS => {
                    failed = 0;
                    self.cx.ready(outputs.clone()).await?;
                    self.log_recovery(closed_at);
                    self.report_guards(true);
                }
                Ok(()) => failed = 0,
                Err(error) => {
                    if failed == 0 {
                        closed_at = Instant::now();
                    }
                    failed += 1;
                    if failed == FAILED_PROOFS {
                        self.cx.degraded(error);
                    }
                }
            }
        }
    }

    /// The forwards that this machine can prove.
    fn proofs(&self) -> Vec<(ForwardSpec, u16, Prober)> {
        let from_here = self.forwards.iter().filter_map(|forward| {
            let (spec, bound, session) = (&forward.spec, forward.bound?, self.session.as_ref()?);
            let is_provable = spec.is_verified() && bound.proof != Proof::Unreachable;
            is_provable.then(|| (spec.clone(), bound.port, spec.prober(session)))
        });
        from_here.collect()
    }
}
