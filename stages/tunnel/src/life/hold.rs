//! While it is up: proofs over and over, and the end when it comes.

use std::time::Instant;

use protocol::StageError;
use tokio::time::MissedTickBehavior;

use super::Life;
use crate::arrival::{NotArrived, Prober, Proof};
use crate::diagnosis;
use crate::forward::ForwardSpec;

/// Two proofs in a row have to fail: one may have met a moment without network.
const FAILED_PROOFS: u32 = 2;

/// The forwards that can be proven from this machine.
struct Proofs(Vec<(ForwardSpec, u16, Prober)>);

impl Proofs {
    /// The first that is closed.
    async fn all(&mut self) -> Result<(), (&ForwardSpec, u16, NotArrived)> {
        for (spec, port, prober) in &mut self.0 {
            if let Err(error) = prober.prove_again(*port).await {
                return Err((spec, *port, error));
            }
        }
        Ok(())
    }
}

impl Life<'_> {
    /// Holds until the connection is lost. A way that closes while the connection stands is reported, and so is its return.
    pub(super) async fn hold(&mut self) -> StageError {
        let outputs = match self.outputs() {
            Ok(outputs) => outputs,
            Err(error) => return error,
        };
        let cx = self.cx;
        let mut proofs = self.proofs();
        let mut ticks = tokio::time::interval(self.config.probe_interval.duration());
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.reset();
        let (mut failed, mut closed_at) = (0, Instant::now());
        let mut greeted = self.ghosts.is_noted();
        loop {
            let Some(session) = &mut self.session else {
                return StageError::internal("no session to hold");
            };
            let greeting = session.greeting();
            let is_proven = !proofs.0.is_empty();
            let next_proof = async {
                ticks.tick().await;
                proofs.all().await
            };
            let proof = tokio::select! {
                lost = session.ended() => return lost,
                proof = next_proof, if is_proven => proof,
                greeting = greeting, if !greeted => {
                    greeted = true;
                    match self.note(&greeting) {
                        Ok(()) => continue,
                        Err(error) => return error,
                    }
                }
            };
            match proof {
                Ok(()) if failed >= FAILED_PROOFS => {
                    failed = 0;
                    if let Err(error) = cx.ready(outputs.clone()).await {
                        return error;
                    }
                    self.told_back(closed_at);
                }
                Ok(()) => failed = 0,
                Err((spec, port, error)) => {
                    if failed == 0 {
                        closed_at = Instant::now();
                    }
                    failed += 1;
                    if failed == FAILED_PROOFS {
                        cx.degraded(diagnosis::closed(spec, port, &error));
                    }
                }
            }
        }
    }

    fn proofs(&self) -> Proofs {
        let Some(session) = &self.session else {
            return Proofs(Vec::new());
        };
        let from_here = self.forwards.iter().filter_map(|forward| {
            let (spec, bound) = (&forward.spec, forward.bound?);
            let is_provable = spec.is_verified() && bound.proof != Proof::OutOfReach;
            is_provable.then(|| (spec.clone(), bound.port, spec.prober(session)))
        });
        Proofs(from_here.collect())
    }
}
