//! `check`: whether the ports still lead to this machine. Runs in a process that does not own the session.

use std::time::Duration;

use futures::future::try_join_all;
use protocol::StageError;

use crate::arrival::{ArrivalError, probe_nonce, probe_tcp, with_timeout};
use crate::codes;
use crate::outputs::{Forwarded, Outputs, Verified};

/// Time limit of one probe: `check` answers within a second.
const ANSWER: Duration = Duration::from_millis(900);

/// Checks all ports in parallel.
pub(crate) async fn check(outputs: &Outputs) -> Result<(), StageError> {
    let main = Forwarded {
        port: outputs.port,
        local_port: outputs.local_port,
        verified: outputs.verified,
    };
    let all = std::iter::once(&main).chain(outputs.forwards.values());
    try_join_all(all.map(|forwarded| leads_here(&outputs.host, forwarded))).await?;
    Ok(())
}

/// If the local port is free, a nonce must arrive there. If the master listens there, the port must accept a
/// connection; whether it arrives in the session is what the running stage proves again and again.
async fn leads_here(host: &str, forwarded: &Forwarded) -> Result<(), StageError> {
    let Forwarded {
        port, local_port, ..
    } = *forwarded;
    let look = async {
        if !probe_nonce(host, port, local_port, ANSWER).await? {
            probe_tcp(host, port, ANSWER).await?;
        }
        Ok(())
    };
    let error = match with_timeout(ANSWER, look).await {
        Ok(()) => return Ok(()),
        // The outputs do not claim that this machine reaches the port.
        Err(ArrivalError::Unreachable(_)) if forwarded.verified == Verified::Unverified => {
            return Ok(());
        }
        Err(ArrivalError::Unreachable(error)) => StageError::new(
            codes::PORT_UNREACHABLE,
            format!("cannot connect to {host}:{port}"),
        )
        .source(&error),
        Err(ArrivalError::Elsewhere) => {
            let message = format!(
                "{host}:{port} accepts connections, but they do not arrive at local port {local_port}"
            );
            StageError::new(codes::ARRIVES_ELSEWHERE, message)
        }
    };
    Err(error.hint("restart the tunnel; its own output shows what it observed"))
}
