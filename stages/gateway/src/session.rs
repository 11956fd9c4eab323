//! A session: the Lease that it holds, from the ledger's first line to the last request.

use std::path::PathBuf;
use std::time::Duration;

use cluster::client::Cluster;
use cluster::reach::{self, Way};
use k8s_openapi::api::coordination::v1::Lease;
use protocol::ledger::{Entry, Ticket};
use protocol::{Context, Env, StageError, Undone};
use serde::{Deserialize, Serialize};

use crate::lease::{self, Claim, Outcome};
use crate::own;
use crate::stage::Gateway;

/// The word for it in the ledger.
pub(crate) const KIND: &str = "session";

/// A Lease is renewed this many times before it would expire, so that a few lost requests cost nothing.
pub(crate) const RENEWALS: u32 = 10;

/// What a later run needs to find the session and to give it back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) kubeconfig: Vec<PathBuf>,
    pub(crate) context: String,
    namespace: String,
    gateway: String,
    holder: String,
    duration: u32,
    made: bool,
}

impl Record {
    pub(crate) fn new(kubeconfig: Vec<PathBuf>, context: &str, claim: &Claim) -> Self {
        let Claim {
            namespace,
            gateway,
            holder,
            duration,
            made,
        } = claim.clone();
        Self {
            kubeconfig,
            context: context.to_owned(),
            namespace,
            gateway,
            holder,
            duration,
            made,
        }
    }

    pub(crate) fn of(entry: &Entry) -> Option<Self> {
        (entry.what == KIND)
            .then(|| serde_json::from_value(entry.data.clone()).ok())
            .flatten()
    }

    pub(crate) fn claim(&self) -> Claim {
        Claim {
            namespace: self.namespace.clone(),
            gateway: self.gateway.clone(),
            holder: self.holder.clone(),
            duration: self.duration,
            made: self.made,
        }
    }
}

/// A Lease that is ours, or is about to be.
pub(crate) struct Session {
    cluster: Cluster,
    pub(crate) claim: Claim,
    /// `None` until the API has confirmed it.
    pub(crate) lease: Option<Lease>,
    lost: bool,
    ticket: Ticket,
}

/// Whether the Lease could be had.
pub(crate) enum Acquired {
    Yes,
    /// Somebody holds it; the text says who.
    No(String),
}

impl Session {
    /// Writes down the intent; nothing is asked of the API yet.
    pub(crate) fn intend(
        cx: &Context<Gateway>,
        cluster: &Cluster,
        record: &Record,
    ) -> Result<Self, StageError> {
        let data = serde_json::to_value(record)
            .map_err(|error| StageError::internal("a session cannot be written").source(&error))?;
        Ok(Self {
            cluster: cluster.clone(),
            claim: record.claim(),
            lease: None,
            lost: false,
            ticket: cx.ledger.intend(KIND, data)?,
        })
    }

    /// Makes the Lease. One that `may_take` approves of is taken from its holder.
    pub(crate) async fn acquire(
        &mut self,
        may_take: impl Fn(&Lease) -> bool,
    ) -> Result<Acquired, StageError> {
        let mut outcome = lease::create(&self.cluster, &self.claim).await?;
        if let Outcome::Theirs(theirs) = &outcome
            && may_take(theirs)
        {
            outcome = lease::replace(&self.cluster, &self.claim, theirs).await?;
        }
        match outcome {
            Outcome::Ours(lease) => {
                self.lease = Some(*lease);
                Ok(Acquired::Yes)
            }
            Outcome::Theirs(lease) => Ok(Acquired::No(lease::describe(&lease))),
            Outcome::Gone => Ok(Acquired::No(
                "another session has just let it go".to_owned(),
            )),
        }
    }

    /// Goes on with the session of a run that died, if nobody has taken it since.
    pub(crate) async fn resume(
        cx: &Context<Gateway>,
        cluster: &Cluster,
        entry: &Entry,
        record: &Record,
    ) -> Result<Option<Self>, StageError> {
        let claim = record.claim();
        let Outcome::Ours(seen) = lease::get(cluster, &claim).await? else {
            return Ok(None);
        };
        let Outcome::Ours(renewed) = lease::replace(cluster, &claim, &seen).await? else {
            return Ok(None);
        };
        Ok(Some(Self {
            cluster: cluster.clone(),
            claim,
            lease: Some(*renewed),
            lost: false,
            ticket: cx.ledger.take_up(entry),
        }))
    }

    /// Renews the Lease for as long as it is ours, and returns why it is not any more.
    pub(crate) async fn keep(&mut self, cx: &Context<Gateway>) -> StageError {
        let period = Duration::from_secs(self.claim.duration.into()) / RENEWALS;
        loop {
            tokio::time::sleep(period).await;
            let Some(seen) = &self.lease else {
                continue;
            };
            match lease::replace(&self.cluster, &self.claim, seen).await {
                Ok(Outcome::Ours(lease)) => self.lease = Some(*lease),
                Ok(Outcome::Theirs(lease)) => return self.lost(&lease::describe(&lease)),
                Ok(Outcome::Gone) => return self.lost("its Lease has been deleted"),
                // It stays ours until somebody says otherwise: nobody took it while nobody could be asked.
                Err(error) => cx.debug(format!("the Lease could not be renewed: {error}")),
            }
        }
    }

    fn lost(&mut self, why: &str) -> StageError {
        self.lost = true;
        StageError::new(
            "gateway.session_lost",
            format!("Gateway {} is not ours any more: {why}", self.claim.title()),
        )
        .hint("start the gateway stage anew, then the master; a longer `lease_duration` survives a longer sleep")
    }

    /// Gives everything back, in one round of requests. What Determined left on a Gateway of ours is swept by `cleanup`.
    pub(crate) async fn release(self, leave: bool) -> Result<(), StageError> {
        if self.lost {
            // Whoever has it now has all of it.
            return self.ticket.settle();
        }
        let keep = leave && self.claim.made;
        let delete_lease = async {
            match self.lease {
                Some(lease) => lease::delete(&self.cluster, &lease, keep).await.map(drop),
                None => delete_if_ours(&self.cluster, &self.claim).await,
            }
        };
        if !self.claim.made || keep {
            delete_lease.await?;
            return self.ticket.settle();
        }
        let (gateway, lease) = tokio::join!(own::delete(&self.cluster, &self.claim), delete_lease);
        gateway.map(drop).and(lease)
    }

    /// Nobody has it, nor ever had: the ledger may forget it.
    pub(crate) fn forget(self) -> Result<(), StageError> {
        self.ticket.settle()
    }
}

async fn delete_if_ours(cluster: &Cluster, claim: &Claim) -> Result<(), StageError> {
    match lease::get(cluster, claim).await? {
        Outcome::Ours(lease) => lease::delete(cluster, &lease, false).await.map(drop),
        _ => Ok(()),
    }
}

/// Gives back what a dead run held.
pub(crate) async fn undo(entry: &Entry, env: &Env) -> Result<Undone, StageError> {
    let Some(record) = Record::of(entry) else {
        return Ok(Undone::Nothing);
    };
    let way = Way {
        kubeconfig: record.kubeconfig.clone(),
        context: record.context.clone(),
    };
    let Some(cluster) = reach::cluster(&way, env).await? else {
        return Ok(Undone::Nothing);
    };
    undo_on(&cluster, &record.claim()).await
}

pub(crate) async fn undo_on(cluster: &Cluster, claim: &Claim) -> Result<Undone, StageError> {
    let lease = match lease::get(cluster, claim).await? {
        // Whoever has taken it over has the Gateway too.
        Outcome::Theirs(_) => return Ok(Undone::Nothing),
        Outcome::Ours(lease) => Some(lease),
        Outcome::Gone => None,
    };
    let mut removed = Vec::new();
    if claim.made {
        if own::delete(cluster, claim).await? {
            removed.push(format!("Gateway {}", claim.title()));
        }
        removed.extend(own::sweep(cluster, claim).await?);
    }
    if let Some(lease) = lease {
        lease::delete(cluster, &lease, false).await?;
        removed.push(format!("the Lease on Gateway {}", claim.title()));
    }
    Ok(match removed.is_empty() {
        true => Undone::Nothing,
        false => Undone::Removed(removed.join(", ")),
    })
}
