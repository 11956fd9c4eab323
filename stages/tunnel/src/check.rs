//! `check`: whether the ports still lead to this machine. Runs in a process that does not own the session.

use std::time::Duration;

use futures::future::try_join_all;
use protocol::{Context, StageError};
use tokio::time::timeout;

use crate::Tunnel;
use crate::arrival::{ArrivalError, probe_nonce, probe_tcp, with_timeout};
use crate::codes;
use crate::guard;
use crate::outputs::{Forwarded, Outputs, Verified};

/// Time limit of one probe: `check` answers within a second.
const ANSWER: Duration = Duration::from_millis(900);

/// Checks all ports in parallel, and reports what their guards find.
pub(crate) async fn check(cx: &Context<Tunnel>, outputs: &Outputs) -> Result<(), StageError> {
    let guards = timeout(ANSWER, guard::ask(&cx.run_dir, &cx.instance)).await;
    let is_guarded = |port: u16| match &guards {
        Ok(reports) => reports.iter().flatten().any(|report| report.port == port),
        // The guards are still examining.
        Err(_) => true,
    };
    for report in guards.iter().flatten().flatten() {
        if report.is_open() {
            return Err(StageError::new(codes::OPEN_MASTER, report.message.clone()));
        }
        cx.info(format!("guard: {}", report.message));
    }
    let main = Forwarded {
        port: outputs.port,
        local_port: outputs.local_port,
        verified: outputs.verified,
    };
    let all = std::iter::once(&main).chain(outputs.forwards.values());
    let look = |forwarded: &Forwarded| {
        let is_guarded = is_guarded(forwarded.local_port);
        leads_here(&outputs.host, *forwarded, is_guarded)
    };
    try_join_all(all.map(look)).await?;
    Ok(())
}

/// If the local port is free and has no guard, a nonce must arrive there. Else the port must accept a
/// connection; whether it arrives in the session is what the running stage proves again and again.
async fn leads_here(host: &str, forwarded: Forwarded, is_guarded: bool) -> Result<(), StageError> {
    let Forwarded {
        port, local_port, ..
    } = forwarded;
    let look = async {
        if is_guarded || !probe_nonce(host, port, local_port, ANSWER).await? {
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
