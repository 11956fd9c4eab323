//! `check --preflight`: the steps of a tunnel. Everything is released at the end.

use protocol::Context;

use super::{CheckTitle, Diagnostics, FORWARDING};
use crate::Tunnel;
use crate::arrival::Proof;
use crate::claim::{accept, claim_any};
use crate::config::Config;
use crate::forward::{BoundPort, ForwardSpec};
use crate::outputs::Verified;

const PORT: CheckTitle = ("port", "a port of the server leads to this machine");

pub(crate) async fn preflight(cx: &Context<Tunnel>, config: Config) {
    let mut diagnostics = Diagnostics::new(cx, config);
    let Some(login) = diagnostics.reach_login(&[FORWARDING, PORT]).await else {
        return;
    };
    let spec = &login.spec;
    let claimed = claim_any(spec, &login.session).await;
    let claimed = claimed.and_then(|claimed| accept(spec, claimed));
    if let Some(claimed) = diagnostics.forwards(claimed, &[PORT]) {
        cx.report_result(PORT, claimed.map(|claimed| proof(spec, claimed)));
    }
    login.session.close().await;
}

fn proof(spec: &ForwardSpec, bound: BoundPort) -> String {
    let at = format!("{}:{}", spec.public_host, bound.port);
    match bound.proof {
        Proof::Proven(Verified::Tcp) => format!("{at} accepts connections; tested and released"),
        Proof::Proven(_) => format!("{at} leads here; tested and released"),
        Proof::Unreachable => {
            format!(
                "the server grants {at}; this machine does not reach it, so only a pod can test it"
            )
        }
        Proof::OriginRewritten | Proof::NotRequested => {
            format!("the server grants {at}; not proven that it leads here")
        }
    }
}
