//! A session: the Lease on its Gateway, from the ledger's first entry to the last request.

use std::time::Duration;

use cluster::Cluster;
use cluster::codes::FORBIDDEN;
use cluster::lease::{self, LeaseState, Renewal};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use protocol::ledger::{Entry, Parked, Ticket};
use protocol::{Context, StageError};
use tokio::sync::watch;

use crate::Gateway;
use crate::codes;
use crate::dedicated;
use crate::lease::{GatewayLease, SESSION};
use crate::tasks::{self, Tasks};

/// A session and its Lease.
pub(crate) struct Session {
    cluster: Cluster,
    pub(crate) lease: GatewayLease,
    /// `None` until the API has confirmed it.
    pub(crate) confirmed: Option<Lease>,
    pub(crate) lost: bool,
    /// Whether a master has used it: tasks may depend on it.
    pub(crate) used: bool,
    ticket: Ticket,
    /// The API has refused the Lease: there is nothing to release.
    refused: bool,
    /// How long the Lease lasts now, in seconds.
    durations: watch::Sender<u32>,
}

impl Session {
    fn new(
        cluster: &Cluster,
        lease: GatewayLease,
        confirmed: Option<Lease>,
        ticket: Ticket,
    ) -> Self {
        let durations = watch::Sender::new(Tasks::Unknown.duration(lease.duration, lease.keep));
        Self {
            cluster: cluster.clone(),
            lease,
            confirmed,
            lost: false,
            used: false,
            ticket,
            refused: false,
            durations,
        }
    }

    /// Records the intent; makes no request yet.
    pub(crate) fn intend(
        cx: &Context<Gateway>,
        cluster: &Cluster,
        lease: GatewayLease,
    ) -> Result<Self, StageError> {
        let data = cluster.context.reference().entry_data(&lease)?;
        let ticket = cx.ledger.intend(SESSION, data)?;
        Ok(Self::new(cluster, lease, None, ticket))
    }

    /// Creates the Lease, or takes it from its holder if `may_take` agrees. If another session holds it, says which.
    pub(crate) async fn acquire(
        &mut self,
        may_take: impl Fn(&Lease) -> bool,
    ) -> Result<Option<String>, StageError> {
        let lease_lock = self.lease.lease_lock();
        let acquired = lease_lock.acquire(&self.cluster, may_take).await;
        match acquired.inspect_err(|it| self.refused = it.is(FORBIDDEN))? {
            LeaseState::Ours(lease) => {
                self.lease.uid = lease.uid();
                let data = self.cluster.context.reference().entry_data(&self.lease)?;
                self.confirmed = Some(lease);
                self.ticket.reopen(data)?;
                Ok(None)
            }
            LeaseState::Theirs(lease) => Ok(Some(lease::describe(&lease))),
            LeaseState::Missing => Ok(Some("another session has just released it".to_owned())),
        }
    }

    /// Resumes the session of an earlier run, if no other session has taken its Lease.
    pub(crate) async fn resume(
        cx: &Context<Gateway>,
        cluster: &Cluster,
        entry: &Entry,
        known: &GatewayLease,
        mut lease: GatewayLease,
    ) -> Result<Option<Self>, StageError> {
        let LeaseState::Ours(seen) = known.lease_lock().get(cluster).await? else {
            return Ok(None);
        };
        lease.uid = seen.uid();
        lease.before = known.lease_lock().run_on(&seen);
        let ticket = cx.ledger.adopt(entry);
        // Both runs are known before the Lease has the new one.
        ticket.reopen(cluster.context.reference().entry_data(&lease)?)?;
        let mut lock = lease.lease_lock();
        // Tasks of the run before may run.
        lock.duration = Tasks::Unknown.duration(lease.duration, lease.keep);
        let LeaseState::Ours(renewed) = lock.replace(cluster, &seen).await? else {
            return Ok(None);
        };
        Ok(Some(Self {
            used: true,
            ..Self::new(cluster, lease, Some(renewed), ticket)
        }))
    }

    /// Renews the Lease until it is lost, and returns the reason. Its duration follows the tasks. `news` gets an error when
    /// the Lease may have expired, and `None` when it is renewed again.
    pub(crate) async fn renew_until_lost(
        &mut self,
        cx: &Context<Gateway>,
        tasks: &mut watch::Receiver<Tasks>,
        news: &watch::Sender<Option<StageError>>,
    ) -> StageError {
        let Some(seen) = &mut self.confirmed else {
            return StageError::internal("the session was never acquired");
        };
        let title = self.lease.title();
        let mut fails = false;
        let tell = |renewal| match renewal {
            Renewal::Renewed => {
                fails = false;
                news.send_if_modified(|wrong| wrong.take().is_some());
            }
            Renewal::Failed(error) if fails => cx.debug(format!("cannot renew the Lease: {error}")),
            Renewal::Failed(error) => {
                fails = true;
                cx.warn(format!(
                    "cannot renew the Lease on Gateway {title}: {error}"
                ));
            }
            Renewal::Overdue(error) => {
                let error = unrenewed(&self.lease, &error);
                news.send_if_modified(|wrong| wrong.replace(error).is_none());
            }
        };
        let (lease_lock, mut durations) = (self.lease.lease_lock(), self.durations.subscribe());
        let renews = lease_lock.renew_until_lost(&self.cluster, seen, &mut durations, tell);
        let (duration, keep) = (self.lease.duration, self.lease.keep);
        let follows = tasks::follow_durations(tasks, &self.durations, duration, keep);
        let why = tokio::select! {
            why = renews => why,
            never = follows => match never {},
        };
        self.lost = true;
        StageError::new(
            codes::SESSION_LOST,
            format!("this session has lost Gateway {title}: {why}"),
        )
    }

    /// Releases everything in one round of requests, or makes none if tasks may run: then Gateway and Lease stay.
    pub(crate) async fn release(
        self,
        cx: &Context<Gateway>,
        leave: bool,
        tasks: Tasks,
    ) -> Result<(), StageError> {
        if self.lost || self.refused {
            // The new holder has everything, or nothing was made.
            return self.ticket.settle();
        }
        // Then the Gateway stays anyway.
        let keep = leave && self.lease.made;
        if let (Some(parked), true) = (self.lease.parked(tasks), self.confirmed.is_some())
            && !keep
        {
            cx.info(parked.stays());
            return self.ticket.park(parked);
        }
        let lease_lock = self.lease.lease_lock();
        if let (Some(held), true) = (&self.confirmed, keep) {
            dedicated::keep(&self.cluster, &self.lease, held).await?;
        }
        let delete_lease = lease_lock.delete(&self.cluster, self.confirmed.clone());
        let Some(held) = self.confirmed.filter(|_| self.lease.made && !keep) else {
            delete_lease.await?;
            return self.ticket.settle();
        };
        let delete_gateway = dedicated::delete(&self.cluster, &self.lease, &held);
        let (gateway, lease) = tokio::join!(delete_gateway, delete_lease);
        gateway.map(drop).and(lease)
    }

    /// The tasks at this moment.
    pub(crate) async fn count_tasks(&self) -> Tasks {
        tasks::count_of(&self.cluster, &self.lease).await
    }

    /// Finds out whether another session has it.
    pub(crate) async fn look(&mut self) {
        let state = self.lease.lease_lock().get(&self.cluster).await;
        self.lost |= matches!(state, Ok(LeaseState::Theirs(_) | LeaseState::Missing));
    }

    /// Discards a session that never held its Lease.
    pub(crate) fn discard(self) -> Result<(), StageError> {
        self.ticket.settle()
    }
}

fn unrenewed(lease: &GatewayLease, error: &StageError) -> StageError {
    let message = format!(
        "the Lease on Gateway {} was not renewed for {} s",
        lease.title(),
        lease.duration
    );
    StageError::new(codes::UNRENEWED, message).because(error)
}

impl GatewayLease {
    /// What stays, if tasks may run.
    pub(crate) fn parked(&self, tasks: Tasks) -> Option<Parked> {
        if self.keep == 0 || tasks == Tasks::None {
            return None;
        }
        let keep = Duration::from_secs(self.keep.into());
        let until = Timestamp::now() + SignedDuration::try_from(keep).unwrap_or_default();
        let what = format!(
            "Gateway {} for {}, until {}",
            self.title(),
            tasks.describe(),
            until.strftime("%F %H:%M UTC")
        );
        Some(Parked::new(what, keep.as_secs()))
    }
}
