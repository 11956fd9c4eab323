//! `check --preflight`: the way of a tunnel, step by step, with nothing left standing.

use protocol::Context;

use super::{FORWARDING, Look, What};
use crate::Tunnel;
use crate::arrival::Proof;
use crate::claim::{accept, claim_any};
use crate::config::Config;
use crate::forward::{Bound, ForwardSpec};
use crate::outputs::Verified;

const PORT: What = ("port", "a port of the server leads here from outside");

pub(crate) async fn preflight(cx: &Context<Tunnel>, config: Config) {
    let mut look = Look::new(cx, config);
    let Some(inside) = look.enter(&[FORWARDING, PORT]).await else {
        return;
    };
    let spec = &inside.spec;
    let claimed = claim_any(spec, &inside.session).await;
    let claimed = claimed.and_then(|claimed| accept(spec, claimed));
    if let Some(claimed) = look.forwards(claimed, &[PORT]) {
        cx.tell(PORT, claimed.map(|claimed| proof(spec, claimed)));
    }
    inside.session.close().await;
}

fn proof(spec: &ForwardSpec, bound: Bound) -> String {
    let at = format!("{}:{}", spec.public_host, bound.port);
    match bound.proof {
        Proof::Seen(Verified::Tcp) => format!("{at} takes connections, tried and given back"),
        Proof::Seen(_) => format!("{at} does, tried and given back"),
        Proof::OutOfReach => {
            format!("{at} is granted; this machine does not get there, only a pod can tell")
        }
        Proof::Changed | Proof::NotAskedFor => {
            format!("{at} is granted; whether it leads here was not proven")
        }
    }
}
