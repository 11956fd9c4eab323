//! Our part in an installed controller: in the ledger from before the first request until it is undone.

use std::time::Duration;

use cluster::Cluster;
use protocol::ledger::Ticket;
use protocol::{Context, StageError};
use serde_json::json;

use super::KIND;
use super::class::has_accepted;
use super::lock::{Lock, LockRequest};
use crate::Gateway;
use crate::lease::user;
use crate::survey::Access;

/// Longer than an installation with the default `timeout`.
const LOCK_TIMEOUT: Duration = Duration::from_secs(330);

/// What is installed, as far as we must remove it.
pub(crate) struct Infrastructure {
    ticket: Ticket,
    holder: String,
    pub(super) lock: Option<Lock>,
}

impl Infrastructure {
    /// Records, once per cluster, that we remove what is installed unless others use it.
    fn intend(cx: &Context<Gateway>, cluster: &Cluster) -> Result<Self, StageError> {
        let reference = cluster.context.reference();
        let known = reference.entry(&cx.ledger, KIND);
        let known = known
            .as_ref()
            .and_then(|it| Some((it, it.data["holder"].as_str()?)));
        let (ticket, holder) = match known {
            Some((entry, holder)) => (cx.ledger.adopt(entry), holder.to_owned()),
            None => {
                let holder = cx.identity()?.as_str().to_owned();
                let data = reference.entry_data(json!({"holder": holder}))?;
                (cx.ledger.intend(KIND, data)?, holder)
            }
        };
        Ok(Self {
            ticket,
            holder,
            lock: None,
        })
    }

    /// Joins the installation on the cluster, and waits for its Lease. Without `create`, no Lease is made if nothing is
    /// installed.
    pub(super) async fn join<'a>(
        Access { cx, cluster, .. }: &Access<'_>,
        slot: &'a mut Option<Self>,
        create: bool,
    ) -> Result<&'a mut Self, StageError> {
        let joined = match slot.take() {
            Some(joined) => joined,
            None => Self::intend(cx, cluster)?,
        };
        let joined = slot.insert(joined);
        if joined.lock.is_none() {
            let request = LockRequest {
                holder: &joined.holder,
                user: user(cx),
                create,
                timeout: LOCK_TIMEOUT,
                env: &cx.env,
            };
            let tell = |line| cx.progress("provision", line);
            joined.lock = Lock::acquire(cluster, request, tell).await?;
        }
        Ok(joined)
    }

    /// Lets other sessions install, remove and create Gateways of the class.
    pub(crate) async fn unlock(&mut self) -> Result<(), StageError> {
        match self.lock.take() {
            Some(lock) => lock.release().await,
            None => Ok(()),
        }
    }

    /// Ends our part. `cleanup` removes what was installed, unless `leave` is set.
    pub(crate) async fn release(
        mut self,
        cx: &Context<Gateway>,
        leave: bool,
    ) -> Result<(), StageError> {
        self.unlock().await?;
        if leave {
            return self.ticket.settle();
        }
        cx.info("the installed controller stays until `devcluster-gateway cleanup` or `devcluster-remote gc`");
        Ok(())
    }
}

impl Access<'_> {
    /// Locks the installation before a Gateway of its class is created, so that no other session removes it meanwhile.
    /// Returns false if it is gone and the cluster must be surveyed again.
    pub(crate) async fn lock_class(
        &self,
        slot: &mut Option<Infrastructure>,
        class: &str,
    ) -> Result<bool, StageError> {
        Infrastructure::join(self, slot, false).await?;
        has_accepted(&self.cluster, class).await
    }
}
