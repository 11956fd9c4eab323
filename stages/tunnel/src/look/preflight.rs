//! `check --preflight`: the way of a tunnel, step by step, with nothing left standing.

use protocol::{Check, Context};

use super::{FORBIDDEN, FORWARDING, Inside, Look, What};
use crate::Tunnel;
use crate::arrival::Proof;
use crate::claim::{accept, claim_any};
use crate::config::Config;
use crate::forward::{Bound, ForwardSpec};
use crate::outputs::Verified;

const PORT: What = ("port", "a port of the server leads here from outside");

pub(crate) async fn preflight(cx: &Context<Tunnel>, config: Config) {
    let mut look = Look { cx, config };
    if let Ok(inside) = look.enter(&[FORWARDING, PORT]).await {
        look.port(inside).await;
    }
}

impl Look<'_> {
    async fn port(&self, inside: Inside) {
        let spec = ForwardSpec::new(&self.config, &inside.resolved);
        let claimed = claim_any(&spec, &inside.session).await;
        let claimed = claimed.and_then(|claimed| accept(&spec, claimed));
        let (id, title) = FORWARDING;
        match &claimed {
            Err(error) if FORBIDDEN.contains(&error.code.as_str()) => {
                self.cx.report(Check::failed(id, title, error));
                self.cx.skip(&[PORT], "needs forwarding");
            }
            _ => {
                self.cx.report(Check::ok(id, title, ""));
                self.tell(PORT, claimed, |claimed| proof(&spec, *claimed));
            }
        }
        inside.session.close().await;
    }
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
