//! `check`: do the ports still lead to this machine? Asked by a process that does not hold the session.

use std::time::Duration;

use futures::future::try_join_all;
use protocol::{Exit, StageError};

use crate::arrival::{ArrivalError, probe_nonce, probe_tcp, with_timeout};
use crate::outputs::{Forwarded, Outputs, Verified};

/// Whoever asks gets an answer within a second.
const ANSWER: Duration = Duration::from_millis(900);

/// Asks for all of them side by side.
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

/// With a free local port a nonce has to come out there. With the master at home there, the port has to accept a
/// connection: that it arrives in the session is for the stage to see, which proves it over and over.
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
        // It was not claimed that this machine gets there.
        Err(ArrivalError::Unreachable(_)) if forwarded.verified == Verified::Unverified => {
            return Ok(());
        }
        Err(ArrivalError::Unreachable(error)) => StageError::new(
            "tunnel.port_unreachable",
            format!("cannot connect to {host}:{port}"),
        )
        .source(&error),
        Err(ArrivalError::Elsewhere) => {
            let message = format!(
                "{host}:{port} accepts connections, but they do not arrive at local port {local_port}"
            );
            StageError::new("tunnel.arrives_elsewhere", message)
        }
    };
    Err(error
        .hint("restart the tunnel; its own output says what it saw")
        .exit(Exit::CheckFailed))
}
