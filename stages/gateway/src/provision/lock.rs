//! The Lease of what was installed on a cluster: its list, and the mutex under which that changes.
//!
//! There is one for a cluster. Who installs, removes, or makes a Gateway of the installed class holds it meanwhile; between
//! that nobody does, and it stays for as long as there is something on its list.

use std::time::Duration;

use cluster::client::Cluster;
use cluster::fault::{self, Attempt};
use cluster::kinds::Reference;
use cluster::observed;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{DeleteParams, PostParams, Preconditions};
use protocol::{Env, StageError};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::lease::{self, LEASES, MANAGED_BY, MANAGER, holder};

/// Where everybody looks for it.
pub(crate) const NAME: &str = "devcluster-infrastructure";
pub(crate) const NAMESPACE: &str = "default";

/// On the Lease: what was installed.
const LIST: &str = "devcluster-gateway/installed";

/// Seconds for which a holder may be unheard of.
const DURATION: i32 = 30;
const RENEWAL: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// What was installed, or is about to be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Installed {
    /// The value of the label that all of it carries.
    pub(crate) mark: String,
    pub(crate) class: String,
    pub(crate) digest: String,
    pub(crate) objects: Vec<Reference>,
}

/// The Lease, held by us.
pub(crate) struct Lock {
    cluster: Cluster,
    holder: String,
    pub(crate) installed: Installed,
}

/// How to come by it.
pub(crate) struct Terms<'a> {
    pub(crate) holder: &'a str,
    /// Make it when there is none.
    pub(crate) create: bool,
    pub(crate) patience: Duration,
    pub(crate) env: &'a Env,
}

fn api(cluster: &Cluster) -> Api<Lease> {
    lease::api(cluster, Some(NAMESPACE))
}

fn failed(cluster: &Cluster, verb: &'static str, error: &kube::Error) -> StageError {
    let attempt = Attempt::new(verb, LEASES, Some(NAMESPACE));
    fault::of_request(&cluster.peer, &attempt, error)
}

fn of(lease: &Lease) -> Installed {
    let annotations = lease.metadata.annotations.as_ref();
    annotations
        .and_then(|all| serde_json::from_str(all.get(LIST)?).ok())
        .unwrap_or_default()
}

fn busy(lease: &Lease) -> StageError {
    let message = format!(
        "session {:?} installs or removes a controller, and does not come to an end",
        holder(lease)
    );
    StageError::new("gateway.infrastructure_busy", message)
        .hint(format!(
            "try again; when it is dead, {DURATION} s pass until others may go on"
        ))
        .retryable(true)
}

/// What is installed, by the Lease's list, for those who only look.
pub(super) async fn look(cluster: &Cluster) -> Result<Installed, StageError> {
    let there = api(cluster)
        .get_opt(NAME)
        .await
        .map_err(|error| failed(cluster, "get", &error))?;
    Ok(there.as_ref().map(of).unwrap_or_default())
}

impl Lock {
    /// Waits until it is ours. `None`: nothing is installed, and `create` is not set.
    pub(crate) async fn acquire(
        cluster: &Cluster,
        terms: Terms<'_>,
        mut tell: impl FnMut(String),
    ) -> Result<Option<Self>, StageError> {
        let deadline = Instant::now() + terms.patience;
        let mut told = false;
        loop {
            let there = api(cluster)
                .get_opt(NAME)
                .await
                .map_err(|error| failed(cluster, "get", &error))?;
            let taken = match &there {
                None if !terms.create => return Ok(None),
                None => create(cluster, terms.holder).await?,
                Some(lease) if free(lease, &terms) => {
                    let mut lease = lease.clone();
                    hold(&mut lease, Some(terms.holder));
                    replace(cluster, &lease).await?
                }
                Some(_) => None,
            };
            if let Some(lease) = taken {
                return Ok(Some(Self {
                    cluster: cluster.clone(),
                    holder: terms.holder.to_owned(),
                    installed: of(&lease),
                }));
            }
            if let Some(lease) = there.filter(|lease| !holder(lease).is_empty()) {
                if Instant::now() > deadline {
                    return Err(busy(&lease));
                }
                if !told {
                    tell(format!(
                        "waiting for session {:?}, which installs or removes a controller",
                        holder(&lease)
                    ));
                    told = true;
                }
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Puts down what is about to be installed.
    pub(crate) async fn write(&mut self, installed: Installed) -> Result<(), StageError> {
        let text = serde_json::to_string(&installed).map_err(|error| {
            StageError::internal("a list of objects cannot be written").source(&error)
        })?;
        self.installed = installed;
        let note = |lease: &mut Lease| {
            let annotations = lease.metadata.annotations.get_or_insert_default();
            annotations.insert(LIST.to_owned(), text.clone());
            hold(lease, Some(&self.holder));
        };
        match change(&self.cluster, &self.holder, note).await? {
            true => Ok(()),
            false => Err(lost()),
        }
    }

    /// Does this while the Lease is renewed.
    pub(crate) async fn during<T>(
        &mut self,
        work: impl AsyncFnOnce(&mut Self) -> Result<T, StageError>,
    ) -> Result<T, StageError> {
        let (cluster, holder) = (self.cluster.clone(), self.holder.clone());
        let kept = async {
            loop {
                tokio::time::sleep(RENEWAL).await;
                let renew = |lease: &mut Lease| hold(lease, Some(&holder));
                // It stays ours until somebody says otherwise.
                if let Ok(false) = change(&cluster, &holder, renew).await {
                    return lost();
                }
            }
        };
        tokio::select! {
            done = work(self) => done,
            lost = kept => Err(lost),
        }
    }

    /// Lets others have it. Nothing was installed: it goes.
    pub(crate) async fn release(self) -> Result<(), StageError> {
        if self.installed.objects.is_empty() {
            return self.delete().await;
        }
        let free = |lease: &mut Lease| hold(lease, None);
        change(&self.cluster, &self.holder, free).await.map(drop)
    }

    pub(crate) async fn delete(self) -> Result<(), StageError> {
        while let Some(lease) = ours(&self.cluster, &self.holder).await? {
            let metadata = &lease.metadata;
            let params = DeleteParams {
                preconditions: Some(Preconditions {
                    uid: metadata.uid.clone(),
                    resource_version: metadata.resource_version.clone(),
                }),
                ..DeleteParams::default()
            };
            match api(&self.cluster).delete(NAME, &params).await {
                // Changed since it was read: by us, or it is not ours any more.
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
                Err(error) => return Err(failed(&self.cluster, "delete", &error)),
                Ok(_) => return Ok(()),
            }
        }
        Ok(())
    }
}

fn lost() -> StageError {
    let message = "another session took over the installing or removing of a controller, because nothing was heard of this one";
    StageError::new("gateway.infrastructure_lost", message)
        .hint("start the gateway stage anew")
        .retryable(true)
}

/// The Lease as it is, if we hold it.
async fn ours(cluster: &Cluster, by: &str) -> Result<Option<Lease>, StageError> {
    let there = api(cluster).get_opt(NAME).await;
    let there = there.map_err(|error| failed(cluster, "get", &error))?;
    Ok(there.filter(|lease| holder(lease) == by))
}

/// Changes the Lease, if we hold it.
async fn change(
    cluster: &Cluster,
    by: &str,
    change: impl Fn(&mut Lease),
) -> Result<bool, StageError> {
    while let Some(mut lease) = ours(cluster, by).await? {
        change(&mut lease);
        if replace(cluster, &lease).await?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Nobody's, ours from a run that died, or that of one who has not been heard of for long enough.
fn free(lease: &Lease, terms: &Terms<'_>) -> bool {
    let held = holder(lease);
    held.is_empty()
        || held == terms.holder
        || !observed::expired(std::slice::from_ref(lease), terms.env).is_empty()
}

/// `None`: somebody was faster.
async fn create(cluster: &Cluster, holder: &str) -> Result<Option<Lease>, StageError> {
    let mut lease = Lease::default();
    let metadata = &mut lease.metadata;
    metadata.name = Some(NAME.to_owned());
    metadata.namespace = Some(NAMESPACE.to_owned());
    metadata.labels = Some([(MANAGED_BY.to_owned(), MANAGER.to_owned())].into());
    hold(&mut lease, Some(holder));
    match api(cluster).create(&PostParams::default(), &lease).await {
        Ok(lease) => Ok(Some(lease)),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(None),
        Err(error) => Err(failed(cluster, "create", &error)),
    }
}

/// `None`: somebody was faster.
async fn replace(cluster: &Cluster, lease: &Lease) -> Result<Option<Lease>, StageError> {
    match api(cluster)
        .replace(NAME, &PostParams::default(), lease)
        .await
    {
        Ok(lease) => Ok(Some(lease)),
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(None),
        Err(error) => Err(failed(cluster, "update", &error)),
    }
}

fn hold(lease: &mut Lease, holder: Option<&str>) {
    let spec = lease.spec.get_or_insert_default();
    spec.holder_identity = holder.map(str::to_owned);
    spec.lease_duration_seconds = Some(DURATION);
    spec.renew_time = Some(MicroTime(Timestamp::now()));
}
