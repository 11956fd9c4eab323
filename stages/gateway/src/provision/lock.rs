//! The Lease of an installation: the list of what is installed, and the lock for changing it.
//!
//! There is one per cluster. A session holds it while it installs, removes, or creates a Gateway of the installed
//! class. In between no session holds it; it exists as long as its list is not empty.

use std::time::Duration;

use cluster::Cluster;
use cluster::lease::{LeaseLock, LeaseState, holder, user};
use cluster::lease_expiry::has_expired;
use cluster::objects::ObjectRef;
use k8s_openapi::api::coordination::v1::Lease;
use kube::ResourceExt;
use protocol::{Env, StageError};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::codes;
use crate::lease::MANAGER;

/// All sessions use this name.
const NAME: &str = "devcluster-infrastructure";
const NAMESPACE: &str = "default";

/// Annotation of the Lease: what is installed.
const LIST: &str = "devcluster-gateway/installed";

/// Seconds until a silent holder loses it.
const DURATION: u32 = 30;
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// What is installed, or about to be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Installed {
    /// The value of the label on all of it.
    pub(crate) mark: String,
    pub(crate) class: String,
    pub(crate) digest: String,
    pub(crate) objects: Vec<ObjectRef>,
}

impl Installed {
    fn from_lease(lease: &Lease) -> Self {
        let list = lease.annotations().get(LIST);
        list.and_then(|list| serde_json::from_str(list).ok())
            .unwrap_or_default()
    }

    /// Reads the list without locking. `None`: there is no Lease.
    pub(super) async fn read(cluster: &Cluster) -> Result<Option<Self>, StageError> {
        match lease_lock("", String::new()).get(cluster).await? {
            LeaseState::Ours(lease) | LeaseState::Theirs(lease) => {
                Ok(Some(Self::from_lease(&lease)))
            }
            LeaseState::Missing => Ok(None),
        }
    }
}

/// The Lease while we hold it.
pub(crate) struct Lock {
    cluster: Cluster,
    lease_lock: LeaseLock,
    lease: Lease,
    pub(crate) installed: Installed,
}

/// How to acquire the Lease.
pub(crate) struct LockRequest<'a> {
    pub(crate) holder: &'a str,
    /// For people.
    pub(crate) user: String,
    /// Create a missing Lease.
    pub(crate) create: bool,
    pub(crate) timeout: Duration,
    pub(crate) env: &'a Env,
}

fn lease_lock(holder: &str, user: String) -> LeaseLock {
    LeaseLock {
        namespace: NAMESPACE.to_owned(),
        namespace_field: "",
        name: NAME.to_owned(),
        holder: holder.to_owned(),
        run: None,
        before: None,
        uid: None,
        instance: None,
        user,
        duration: DURATION,
        manager: MANAGER,
        annotations: Vec::new(),
    }
}

impl Lock {
    /// Waits until we hold it. `None`: nothing is installed, and `create` is not set.
    pub(crate) async fn acquire(
        cluster: &Cluster,
        request: LockRequest<'_>,
        mut tell: impl FnMut(String),
    ) -> Result<Option<Self>, StageError> {
        let lease_lock = lease_lock(request.holder, request.user);
        let deadline = Instant::now() + request.timeout;
        let mut reported = false;
        loop {
            let outcome = match lease_lock.get(cluster).await? {
                LeaseState::Missing if !request.create => return Ok(None),
                LeaseState::Missing => lease_lock.create(cluster).await?,
                LeaseState::Theirs(lease) if !is_free(&lease, request.env) => {
                    LeaseState::Theirs(lease)
                }
                // Ours also from a dead run.
                LeaseState::Ours(lease) | LeaseState::Theirs(lease) => {
                    lease_lock.replace(cluster, &lease).await?
                }
            };
            match outcome {
                LeaseState::Ours(lease) => {
                    return Ok(Some(Self {
                        cluster: cluster.clone(),
                        lease_lock,
                        installed: Installed::from_lease(&lease),
                        lease,
                    }));
                }
                LeaseState::Theirs(lease) if Instant::now() > deadline => return Err(busy(&lease)),
                LeaseState::Theirs(lease) if !reported && !holder(&lease).is_empty() => {
                    let user = user(&lease);
                    tell(format!(
                        "waiting for session {user:?}, which is installing or removing a controller"
                    ));
                    reported = true;
                }
                _ => {}
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Records what is about to be installed.
    pub(crate) async fn record(&mut self, installed: Installed) -> Result<(), StageError> {
        let text = serde_json::to_string(&installed).map_err(|error| {
            StageError::internal("a list of objects cannot be written").source(&error)
        })?;
        self.installed = installed;
        self.lease_lock.annotations = vec![(LIST, text)];
        match self.lease_lock.replace(&self.cluster, &self.lease).await? {
            LeaseState::Ours(lease) => {
                self.lease = lease;
                Ok(())
            }
            _ => Err(lost()),
        }
    }

    /// Does the work while the Lease is renewed.
    pub(crate) async fn while_renewing<T>(
        &mut self,
        work: impl Future<Output = Result<T, StageError>>,
    ) -> Result<T, StageError> {
        let mut duration = watch::Sender::new(DURATION).subscribe();
        let (lease_lock, cluster) = (&self.lease_lock, &self.cluster);
        let kept = lease_lock.renew_until_lost(cluster, &mut self.lease, &mut duration, |_| ());
        tokio::select! {
            done = work => done,
            _ = kept => Err(lost()),
        }
    }

    /// Releases the Lease, or deletes it if nothing is installed.
    pub(crate) async fn release(self) -> Result<(), StageError> {
        if self.installed.objects.is_empty() {
            return self.delete().await;
        }
        self.lease_lock
            .clear_holder(&self.cluster, &self.lease)
            .await
    }

    pub(crate) async fn delete(self) -> Result<(), StageError> {
        let Self {
            lease_lock,
            cluster,
            ..
        } = &self;
        lease_lock.delete(cluster, Some(self.lease.clone())).await
    }
}

/// No session holds it, or its holder is silent for too long.
fn is_free(lease: &Lease, env: &Env) -> bool {
    holder(lease).is_empty() || has_expired(lease, env)
}

fn busy(lease: &Lease) -> StageError {
    let message = format!(
        "session {:?} is installing or removing a controller, and did not finish in time",
        user(lease)
    );
    StageError::new(codes::INFRASTRUCTURE_BUSY, message).hint(format!(
        "try again; if that session is dead, others may continue after {DURATION} s"
    ))
}

fn lost() -> StageError {
    let message = "another session took over the installation or removal of a controller, because this one did not renew its Lease";
    StageError::new(codes::INFRASTRUCTURE_BUSY, message)
}
