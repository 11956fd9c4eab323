//! A session: the Lease on its Gateway, from the ledger's first entry to the last request.

use cluster::Cluster;
use cluster::lease::{self, LeaseState};
use k8s_openapi::api::coordination::v1::Lease;
use protocol::ledger::{Entry, Ticket};
use protocol::{Context, StageError};

use crate::Gateway;
use crate::codes;
use crate::dedicated;
use crate::lease::{GatewayLease, SESSION};

/// A session and its Lease.
pub(crate) struct Session {
    cluster: Cluster,
    pub(crate) lease: GatewayLease,
    /// `None` until the API has confirmed it.
    pub(crate) confirmed: Option<Lease>,
    lost: bool,
    ticket: Ticket,
}

impl Session {
    /// Records the intent; makes no request yet.
    pub(crate) fn intend(
        cx: &Context<Gateway>,
        cluster: &Cluster,
        lease: GatewayLease,
    ) -> Result<Self, StageError> {
        let data = cluster.context.reference().entry_data(&lease)?;
        Ok(Self {
            cluster: cluster.clone(),
            lease,
            confirmed: None,
            lost: false,
            ticket: cx.ledger.intend(SESSION, data)?,
        })
    }

    /// Creates the Lease, or takes it from its holder if `may_take` agrees. If another session holds it, says which.
    pub(crate) async fn acquire(
        &mut self,
        may_take: impl Fn(&Lease) -> bool,
    ) -> Result<Option<String>, StageError> {
        let lease_lock = self.lease.lease_lock();
        let mut outcome = lease_lock.create(&self.cluster).await?;
        if let LeaseState::Theirs(theirs) = &outcome
            && may_take(theirs)
        {
            outcome = lease_lock.replace(&self.cluster, theirs).await?;
        }
        match outcome {
            LeaseState::Ours(lease) => {
                self.confirmed = Some(lease);
                Ok(None)
            }
            LeaseState::Theirs(lease) => Ok(Some(lease::describe(&lease))),
            LeaseState::Missing => Ok(Some("another session has just released it".to_owned())),
        }
    }

    /// Resumes the session of a dead run, if no other session has taken its Lease.
    pub(crate) async fn resume(
        cx: &Context<Gateway>,
        cluster: &Cluster,
        entry: &Entry,
        lease: &GatewayLease,
    ) -> Result<Option<Self>, StageError> {
        let lease_lock = lease.lease_lock();
        let LeaseState::Ours(seen) = lease_lock.get(cluster).await? else {
            return Ok(None);
        };
        let LeaseState::Ours(renewed) = lease_lock.replace(cluster, &seen).await? else {
            return Ok(None);
        };
        Ok(Some(Self {
            cluster: cluster.clone(),
            lease: lease.clone(),
            confirmed: Some(renewed),
            lost: false,
            ticket: cx.ledger.adopt(entry),
        }))
    }

    /// Renews the Lease until it is lost, and returns the reason.
    pub(crate) async fn renew_until_lost(&mut self, cx: &Context<Gateway>) -> StageError {
        let Some(seen) = &mut self.confirmed else {
            return StageError::internal("the session was never acquired");
        };
        let failed = |error: &StageError| cx.debug(format!("cannot renew the Lease: {error}"));
        let lease_lock = self.lease.lease_lock();
        let why = lease_lock
            .renew_until_lost(&self.cluster, seen, failed)
            .await;
        self.lost = true;
        let title = self.lease.title();
        StageError::new(
            codes::SESSION_LOST,
            format!("this session has lost Gateway {title}: {why}"),
        )
    }

    /// Releases everything in one round of requests. `cleanup` removes what Determined left on a Gateway of our own.
    pub(crate) async fn release(self, leave: bool) -> Result<(), StageError> {
        if self.lost {
            // The new holder has everything.
            return self.ticket.settle();
        }
        let keep = leave && self.lease.made;
        let lease_lock = self.lease.lease_lock();
        let delete_lease = lease_lock.delete(&self.cluster, self.confirmed, keep);
        if !self.lease.made || keep {
            delete_lease.await?;
            return self.ticket.settle();
        }
        let delete_gateway = dedicated::delete(&self.cluster, &self.lease);
        let (gateway, lease) = tokio::join!(delete_gateway, delete_lease);
        gateway.map(drop).and(lease)
    }

    /// Discards a session that never held its Lease.
    pub(crate) fn discard(self) -> Result<(), StageError> {
        self.ticket.settle()
    }
}
