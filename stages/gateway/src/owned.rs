//! The Gateway that our master has used, remembered while it has ports of ours: no other master's ports are on it.

use cluster::{Cluster, ClusterRef};
use protocol::ledger::{Entry, Parked, Ticket};
use protocol::{Context, Leftover, Removal, StageError};
use serde::{Deserialize, Serialize};

use crate::Gateway;
use crate::leftovers;
use crate::objects;

/// The ledger's kind of entry for it.
pub(crate) const KIND: &str = "gateway";

/// How long it is remembered after the last run, in seconds.
const MEMORY: u64 = 30 * 24 * 3600;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Owned {
    namespace: String,
    gateway: String,
}

impl Owned {
    fn title(&self) -> String {
        format!("{}/{}", self.namespace, self.gateway)
    }
}

/// The titles of those on this cluster.
pub(crate) fn titles(cx: &Context<Gateway>, here: &ClusterRef) -> Vec<String> {
    let entries = cx.ledger.entries();
    let here = entries.iter().filter(|it| leftovers::is_here(it, here));
    let owned = here.filter_map(|it| it.read::<Owned>(KIND));
    owned.map(|it| it.title()).collect()
}

/// Remembers a Gateway.
pub(crate) fn remember(
    cx: &Context<Gateway>,
    cluster: &Cluster,
    namespace: &str,
    gateway: &str,
) -> Result<Ticket, StageError> {
    let owned = Owned {
        namespace: namespace.to_owned(),
        gateway: gateway.to_owned(),
    };
    let data = cluster.context.reference().entry_data(&owned)?;
    let entries = cx.ledger.entries();
    match entries.iter().find(|it| it.what == KIND && it.data == data) {
        Some(known) => {
            let ticket = cx.ledger.adopt(known);
            ticket.reopen(data)?;
            Ok(ticket)
        }
        None => cx.ledger.intend(KIND, data),
    }
}

/// Forgets it when it has no ports of a master.
pub(crate) async fn leftover<'a>(
    cx: &Context<Gateway>,
    cluster: &Cluster,
    entry: &Entry,
) -> Result<Option<Leftover<'a>>, StageError> {
    let Some(owned) = entry.read::<Owned>(KIND).filter(|_| cx.keeps()) else {
        return Ok(None);
    };
    let gateway = objects::gateway(cluster, &owned.namespace, &owned.gateway).await?;
    let is_used = gateway.is_some_and(|it| objects::determined_ports(&it).next().is_some());
    let parked = async { Ok(Removal::Parked(Parked::new("", MEMORY))) };
    Ok(is_used.then(|| Leftover::new("", parked)))
}
