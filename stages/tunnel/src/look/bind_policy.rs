//! For whom the server listens: its GatewayPorts, as far as they can be seen.

use super::ports::PATIENCE;
use crate::forward::ForwardSpec;
use crate::ssh::{ANY_IPV4, Listening, NotListening, Refusal, Session};

const LOOPBACK: &str = "127.0.0.1";

/// What `GatewayPorts` does to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BindPolicy {
    /// `no`: loopback alone.
    Off,
    /// `yes`: all addresses, whatever is asked.
    Always,
    /// `clientspecified`.
    AsAsked,
    /// Not `no`; which of the other two cannot be seen.
    NotOff,
    /// The account may listen on certain addresses, and not on all.
    NotOnAll,
    /// The server does not show its sockets, and no visitor came through.
    Unknown,
}

/// Where a port is listened on that was granted.
enum Seen {
    OnLoopback,
    OnAll,
    /// The server does not show its sockets, and a visitor from outside does not get there.
    NotFromOutside,
    Nothing,
}

/// Asks for a free port twice, on all addresses and on loopback, and gives it back.
pub(super) async fn bind_policy(
    session: &mut Session,
    spec: &ForwardSpec,
    port: u16,
) -> BindPolicy {
    let asked = std::mem::replace(&mut session.bind_address, ANY_IPV4.to_owned());
    let policy = match listened(session, spec, port).await {
        Ok(Seen::OnLoopback) => BindPolicy::Off,
        Ok(Seen::OnAll) => {
            session.bind_address = LOOPBACK.to_owned();
            match listened(session, spec, port).await {
                Ok(Seen::OnLoopback | Seen::NotFromOutside) => BindPolicy::AsAsked,
                Ok(Seen::OnAll) => BindPolicy::Always,
                Ok(Seen::Nothing) | Err(_) => BindPolicy::NotOff,
            }
        }
        Err(NotListening::Refused(Refusal::NotPermitted)) => BindPolicy::NotOnAll,
        Ok(Seen::NotFromOutside | Seen::Nothing) | Err(_) => BindPolicy::Unknown,
    };
    session.bind_address = asked;
    policy
}

async fn listened(session: &Session, spec: &ForwardSpec, port: u16) -> Result<Seen, NotListening> {
    session.listen(port, spec.local_port).await?;
    let listening = session.listening(port).await;
    let seen = if listening.on_loopback_only() {
        Seen::OnLoopback
    } else if listening.on_all_addresses() {
        Seen::OnAll
    } else if listening != Listening::default() || spec.leads_to_loopback().await {
        Seen::Nothing
    } else {
        let mut prober = spec.prober(session);
        prober.patience = PATIENCE;
        match prober.prove_again(port).await {
            Ok(()) => Seen::OnAll,
            Err(_) => Seen::NotFromOutside,
        }
    };
    session.give_back(port).await;
    Ok(seen)
}
