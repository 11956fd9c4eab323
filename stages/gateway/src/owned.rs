//! The Gateway that our master has used, remembered while it has ports of our tasks: it is ours while no task of another
//! master has one there.

use std::collections::BTreeSet;

use cluster::{Cluster, ClusterRef};
use protocol::ledger::{Entry, Parked, Ticket};
use protocol::{Context, Leftover, Removal, StageError};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::Gateway;
use crate::lease::GatewayLease;
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
    /// The allocations of our master with ports on it when it was seen last.
    #[serde(default)]
    pub(crate) allocations: BTreeSet<String>,
}

impl Owned {
    pub(crate) fn title(&self) -> String {
        format!("{}/{}", self.namespace, self.gateway)
    }
}

/// Those on this cluster.
pub(crate) fn all(cx: &Context<Gateway>, here: &ClusterRef) -> Vec<Owned> {
    let entries = cx.ledger.entries();
    let here = entries.iter().filter(|it| leftovers::is_here(it, here));
    here.filter_map(|it| it.read(KIND)).collect()
}

/// The memory of a Gateway while a run uses it.
pub(crate) struct Memory {
    ticket: Ticket,
    cluster: ClusterRef,
    owned: Owned,
}

impl Memory {
    pub(crate) fn start(
        cx: &Context<Gateway>,
        cluster: &Cluster,
        lease: &GatewayLease,
        allocations: BTreeSet<String>,
    ) -> Result<Self, StageError> {
        let owned = Owned {
            namespace: lease.namespace.clone(),
            gateway: lease.gateway.clone(),
            allocations,
        };
        let cluster = cluster.context.reference();
        let data = cluster.entry_data(&owned)?;
        let is_it = |it: &Owned| it.title() == owned.title();
        let entries = cx.ledger.entries();
        let mut here = entries.iter().filter(|it| leftovers::is_here(it, &cluster));
        let ticket = match here.find(|it| it.read(KIND).as_ref().is_some_and(is_it)) {
            Some(known) => {
                let ticket = cx.ledger.adopt(known);
                ticket.reopen(data)?;
                ticket
            }
            None => cx.ledger.intend(KIND, data)?,
        };
        Ok(Self {
            ticket,
            cluster,
            owned,
        })
    }

    /// Records the allocations with ports. Ends only with an error.
    pub(crate) async fn follow(
        &mut self,
        mut ports: watch::Receiver<BTreeSet<String>>,
    ) -> Result<(), StageError> {
        while ports.changed().await.is_ok() {
            self.owned.allocations = ports.borrow_and_update().clone();
            self.ticket.reopen(self.cluster.entry_data(&self.owned)?)?;
        }
        std::future::pending().await
    }

    pub(crate) fn forget(self) -> Result<(), StageError> {
        self.ticket.settle()
    }
}

/// Forgets it when it has no ports of our tasks.
pub(crate) async fn leftover<'a>(
    cx: &Context<Gateway>,
    cluster: &Cluster,
    entry: &Entry,
) -> Result<Option<Leftover<'a>>, StageError> {
    let Some(owned) = entry.read::<Owned>(KIND).filter(|_| cx.keeps()) else {
        return Ok(None);
    };
    let gateway = objects::gateway(cluster, &owned.namespace, &owned.gateway).await?;
    let ports = gateway.as_ref().map(objects::allocations);
    let is_used = ports.is_some_and(|it| !it.is_disjoint(&owned.allocations));
    let parked = async { Ok(Removal::Parked(Parked::new("", MEMORY))) };
    Ok(is_used.then(|| Leftover::new("", parked)))
}
