//! Detects the server's GatewayPorts: on which addresses it listens.

use super::ports::PATIENCE;
use crate::forward::ForwardSpec;
use crate::ssh::{ANY_IPV4, ListenError, Listeners, Refusal, SshSession};

const LOOPBACK: &str = "127.0.0.1";

/// The value of `GatewayPorts`, as observed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BindPolicy {
    /// `no`: loopback alone.
    Off,
    /// `yes`: all addresses, whatever the client requests.
    Always,
    /// `clientspecified`: the addresses that the client requests.
    AsAsked,
    /// Not `no`; which of the other two is not visible.
    NotOff,
    /// The account may listen on certain addresses, not on all.
    NotOnAll,
    /// The server does not show its sockets, and no visitor arrived.
    Unknown,
}

/// Where the server listens for a granted port.
enum ObservedBind {
    OnLoopback,
    OnAll,
    /// The server does not show its sockets, and a visitor from outside does not arrive.
    NotFromOutside,
    Nothing,
}

/// Requests a free port twice, on all addresses and on loopback, and releases it.
pub(super) async fn bind_policy(
    session: &mut SshSession,
    spec: &ForwardSpec,
    port: u16,
) -> BindPolicy {
    let asked = std::mem::replace(&mut session.bind_address, ANY_IPV4.to_owned());
    let policy = match observe_bind(session, spec, port).await {
        Ok(ObservedBind::OnLoopback) => BindPolicy::Off,
        Ok(ObservedBind::OnAll) => {
            session.bind_address = LOOPBACK.to_owned();
            match observe_bind(session, spec, port).await {
                Ok(ObservedBind::OnLoopback | ObservedBind::NotFromOutside) => BindPolicy::AsAsked,
                Ok(ObservedBind::OnAll) => BindPolicy::Always,
                Ok(ObservedBind::Nothing) | Err(_) => BindPolicy::NotOff,
            }
        }
        Err(ListenError::Refused(Refusal::NotPermitted)) => BindPolicy::NotOnAll,
        Ok(ObservedBind::NotFromOutside | ObservedBind::Nothing) | Err(_) => BindPolicy::Unknown,
    };
    session.bind_address = asked;
    policy
}

async fn observe_bind(
    session: &SshSession,
    spec: &ForwardSpec,
    port: u16,
) -> Result<ObservedBind, ListenError> {
    session.listen(port, &spec.local_end()).await?;
    let listening = session.listening(port).await;
    let seen = if listening.on_loopback_only() {
        ObservedBind::OnLoopback
    } else if listening.on_all_addresses() {
        ObservedBind::OnAll
    } else if listening != Listeners::default() || spec.leads_to_loopback().await {
        ObservedBind::Nothing
    } else {
        let mut prober = spec.prober(session);
        prober.patience = PATIENCE;
        match prober.recheck(port).await {
            Ok(()) => ObservedBind::OnAll,
            Err(_) => ObservedBind::NotFromOutside,
        }
    };
    session.stop_listening(port).await;
    Ok(seen)
}
