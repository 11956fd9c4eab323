//! The Lease `devcluster-tasks` in the namespace for tasks: a starting master ends the tasks of any other one there, so one
//! master has it. The stages of one file share it; the last to leave removes it.

use cluster::Cluster;
use cluster::codes::FORBIDDEN;
use cluster::lease::{LeaseLock, LeaseState, describe};
use cluster::lease_expiry::{has_expired, seems_expired};
use k8s_openapi::api::coordination::v1::Lease;
use protocol::ledger::{Entry, Parked, Ticket};
use protocol::{Context, Leftover, StageError};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::Gateway;
use crate::codes;
use crate::config::Config;
use crate::lease::user;
use crate::leftovers::{self, renew_and_park};
use crate::tasks::{self, Tasks};

/// The ledger's kind of entry for it.
pub(crate) const KIND: &str = "task_namespace";

/// The name of the Lease, which other kinds of stage use too.
const NAME: &str = "devcluster-tasks";

/// The value of the managed-by label on it.
const MANAGER: &str = "devcluster";

/// Our part in it, as the ledger stores it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Part {
    task_namespace: String,
    /// The identity of the run directory.
    run_dir: String,
    instance: String,
    /// Seconds for which it stays while tasks run.
    keep: u32,
    /// The run that held it before, if it was resumed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    before: Option<String>,
}

impl Part {
    fn new(cx: &Context<Gateway>, config: &Config) -> Result<Self, StageError> {
        Ok(Self {
            task_namespace: config.task_namespace.clone(),
            run_dir: cx.run_dir_identity()?.as_str().to_owned(),
            instance: cx.instance.clone(),
            keep: if cx.is_lasting() { config.keep } else { 0 },
            before: None,
        })
    }

    fn lock(&self, run: &str, user: String, duration: u32) -> LeaseLock {
        LeaseLock {
            namespace: self.task_namespace.clone(),
            namespace_field: "task_namespace",
            name: NAME.to_owned(),
            holder: self.run_dir.clone(),
            run: Some(run.to_owned()),
            before: self.before.clone(),
            uid: None,
            instance: Some(self.instance.clone()),
            user,
            duration,
            manager: MANAGER,
            annotations: Vec::new(),
        }
    }

    /// The entry of an earlier run, and the run that the Lease has of our instance if we hold it. The same cluster can have
    /// another kubeconfig; a run of ours is on no other cluster's Lease.
    async fn known(
        &self,
        cx: &Context<Gateway>,
        cluster: &Cluster,
    ) -> Result<Option<(Entry, Option<String>)>, StageError> {
        let here = cluster.context.reference();
        let mut known = None;
        for entry in cx.ledger.entries() {
            let Some(part) = entry.read::<Self>(KIND).filter(|it| self.is_same(it)) else {
                continue;
            };
            let lock = part.lock(&entry.run, String::new(), 0);
            let run = match lock.get(cluster).await? {
                LeaseState::Ours(seen) => lock.run_on(&seen),
                _ => None,
            };
            if run.is_some() || leftovers::is_here(&entry, &here) {
                known = Some((entry, run));
            }
        }
        Ok(known)
    }

    fn title(&self) -> String {
        format!("the Lease on task namespace {}", self.task_namespace)
    }
}

/// The namespace for tasks while we have it.
pub(crate) struct TaskNamespace {
    cluster: Cluster,
    part: Part,
    lock: LeaseLock,
    lease: Lease,
    ticket: Ticket,
    /// Whether it stands from an earlier run, whose tasks may run.
    pub(crate) is_resumed: bool,
    pub(crate) lost: bool,
}

impl TaskNamespace {
    /// Acquires it, or ends with an error if another master has it.
    pub(crate) async fn acquire(
        cx: &Context<Gateway>,
        config: &Config,
        cluster: &Cluster,
        slot: &mut Option<Self>,
    ) -> Result<(), StageError> {
        let mut part = Part::new(cx, config)?;
        let reference = cluster.context.reference();
        let known = part.known(cx, cluster).await?;
        let is_resumed = known.is_some();
        let ticket = match known {
            Some((entry, before)) => {
                part.before = before;
                let ticket = cx.ledger.adopt(&entry);
                // Both runs are known before the Lease has the new one.
                ticket.reopen(reference.entry_data(&part)?)?;
                ticket
            }
            None => cx.ledger.intend(KIND, reference.entry_data(&part)?)?,
        };
        let lock = part.lock(cx.run_id(), user(cx), config.lease_duration.max(part.keep));
        let may_take = |theirs: &Lease| config.take_over || has_expired(theirs, &cx.env);
        match lock.acquire(cluster, may_take).await {
            // Nothing was made, and `gc` may not look either.
            Err(error) if error.is(FORBIDDEN) && !is_resumed => {
                ticket.settle()?;
                Err(error)
            }
            Err(error) => Err(error),
            Ok(LeaseState::Ours(lease)) => {
                *slot = Some(Self {
                    cluster: cluster.clone(),
                    part,
                    lock,
                    lease,
                    ticket,
                    is_resumed,
                    lost: false,
                });
                Ok(())
            }
            Ok(LeaseState::Theirs(lease)) => {
                ticket.settle()?;
                Err(held(&config.task_namespace, &lease))
            }
            Ok(LeaseState::Missing) => {
                ticket.settle()?;
                let message = "another session has just released the task namespace";
                Err(StageError::new(codes::TASK_NAMESPACE_HELD, message))
            }
        }
    }

    /// The tasks at this moment.
    pub(crate) async fn count_tasks(&self) -> Tasks {
        tasks::count(&self.cluster, &self.part.task_namespace).await
    }

    /// Renews the Lease until it is lost, and returns the error.
    pub(crate) async fn renew_until_lost(
        &mut self,
        config: &Config,
        mut tasks: watch::Receiver<Tasks>,
    ) -> StageError {
        let (duration, keep) = (config.lease_duration, self.part.keep);
        let sender = watch::Sender::new(Tasks::Unknown.duration(duration, keep));
        let mut durations = sender.subscribe();
        let lock = LeaseLock {
            duration,
            ..self.lock.clone()
        };
        let renews = lock.renew_until_lost(&self.cluster, &mut self.lease, &mut durations, |_| ());
        let follows = tasks::follow_durations(&mut tasks, &sender, duration, keep);
        let why = tokio::select! {
            why = renews => why,
            never = follows => match never {},
        };
        self.lost = true;
        let namespace = &self.part.task_namespace;
        let message = format!("this session has lost the task namespace {namespace}: {why}");
        StageError::new(codes::SESSION_LOST, message)
    }

    /// Leaves it, unless tasks may run: then it stays.
    pub(crate) async fn release(self, tasks: Tasks) -> Result<(), StageError> {
        let Self { part, ticket, .. } = self;
        if self.lost {
            return ticket.settle();
        }
        if part.keep > 0 && tasks != Tasks::None {
            return ticket.park(Parked::new("", part.keep.into()));
        }
        self.lock.leave(&self.cluster, Some(self.lease)).await?;
        ticket.settle()
    }
}

impl Part {
    /// Whether it is about the same Lease.
    fn is_same(&self, other: &Self) -> bool {
        let key = |it: &Self| (it.task_namespace.clone(), it.run_dir.clone());
        key(self) == key(other)
    }
}

fn held(namespace: &str, lease: &Lease) -> StageError {
    let message = format!(
        "another Determined master runs its tasks in namespace {namespace}: {}",
        describe(lease)
    );
    StageError::new(codes::TASK_NAMESPACE_HELD, message)
}

/// Whether a run could have it, for a preflight.
pub(crate) async fn check(
    cx: &Context<Gateway>,
    config: &Config,
    cluster: &Cluster,
) -> Result<String, StageError> {
    let mut part = Part::new(cx, config)?;
    part.before = part.known(cx, cluster).await?.and_then(|(_, run)| run);
    let lock = part.lock(cx.run_id(), String::new(), 0);
    match lock.get(cluster).await? {
        LeaseState::Theirs(lease) => match config.take_over || seems_expired(&lease, &cx.env) {
            true => Ok(String::new()),
            false => Err(held(&config.task_namespace, &lease)),
        },
        LeaseState::Ours(_) | LeaseState::Missing => Ok(config.task_namespace.clone()),
    }
}

/// The namespace of this entry.
pub(crate) fn of(entry: &Entry) -> Option<String> {
    Some(entry.read::<Part>(KIND)?.task_namespace)
}

/// The Lease of this entry.
pub(crate) fn lock_of(entry: &Entry) -> Option<LeaseLock> {
    let part: Part = entry.read(KIND)?;
    Some(part.lock(&entry.run, String::new(), 0))
}

/// What a dead run left of it.
pub(crate) async fn leftover<'a>(
    cx: &Context<Gateway>,
    cluster: &Cluster,
    entry: &Entry,
) -> Result<Option<Leftover<'a>>, StageError> {
    let Some(part) = entry.read::<Part>(KIND) else {
        return Ok(None);
    };
    let lock = part.lock(&entry.run, String::new(), 0);
    let LeaseState::Ours(lease) = lock.get(cluster).await? else {
        return Ok(None);
    };
    let cluster = cluster.clone();
    if cx.keeps()
        && part.keep > 0
        && entry.parked.is_none()
        && tasks::count(&cluster, &part.task_namespace).await != Tasks::None
    {
        let parked = Parked::new("", part.keep.into());
        let renewed = part.lock(&entry.run, user(cx), part.keep);
        return Ok(Some(renew_and_park(&cluster, renewed, lease, parked)));
    }
    Ok(Some(Leftover::new(part.title(), async move {
        lock.leave(&cluster, Some(lease)).await?;
        Ok(true)
    })))
}
