//! Leases: the session that creates a Lease holds what the Lease stands for, as long as it renews it.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, ListParams, PostParams, Preconditions};
use kube::{Api, ResourceExt};
use protocol::StageError;

use crate::client::Cluster;
use crate::errors::status;

pub const LEASES: &str = "leases.coordination.k8s.io";

/// The label of every object that a stage creates.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";

/// A Lease is renewed this many times per duration, so that a few lost requests do no harm.
pub const RENEWALS: u32 = 10;

/// A Lease as its holder writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseLock {
    pub namespace: String,
    /// The config field that names the namespace.
    pub namespace_field: &'static str,
    pub name: String,
    /// The holder's identity, unique to a session.
    pub holder: String,
    /// Seconds.
    pub duration: u32,
    /// The value of [`MANAGED_BY`].
    pub manager: &'static str,
    pub annotations: Vec<(&'static str, String)>,
}

/// Who holds a Lease.
#[derive(Debug)]
pub enum LeaseState {
    Ours(Lease),
    /// Another session holds it, or none does.
    Theirs(Lease),
    /// There is no such Lease.
    Missing,
}

impl LeaseLock {
    fn api(&self, cluster: &Cluster) -> Api<Lease> {
        Api::namespaced(cluster.client.clone(), &self.namespace)
    }

    fn failed(&self, cluster: &Cluster, verb: &'static str, error: &kube::Error) -> StageError {
        cluster.failed(verb, LEASES, Some(&self.namespace), error)
    }

    fn write_into(&self, lease: &mut Lease) {
        let now = MicroTime(Timestamp::now());
        let labels = lease.labels_mut();
        labels.insert(MANAGED_BY.to_owned(), self.manager.to_owned());
        let annotations = self.annotations.iter().cloned();
        let annotations = annotations.map(|(key, value)| (key.to_owned(), value));
        lease.annotations_mut().extend(annotations);
        let is_new = lease.metadata.resource_version.is_none();
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_ref() != Some(&self.holder) {
            spec.holder_identity = Some(self.holder.clone());
            spec.acquire_time = Some(now.clone());
            spec.lease_transitions = (!is_new).then(|| spec.lease_transitions.unwrap_or(0) + 1);
        }
        spec.lease_duration_seconds = i32::try_from(self.duration).ok();
        spec.renew_time = Some(now);
    }

    /// Creates the Lease.
    pub async fn create(&self, cluster: &Cluster) -> Result<LeaseState, StageError> {
        let mut lease = Lease {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                ..ObjectMeta::default()
            },
            ..Lease::default()
        };
        self.write_into(&mut lease);
        let (leases, params) = (self.api(cluster), PostParams::default());
        match leases.create(&params, &lease).await {
            Ok(lease) => Ok(LeaseState::Ours(lease)),
            // Also the case if the answer to a first try was lost and the client tried again.
            Err(error) if status(&error) == 409 => self.get(cluster).await,
            Err(error) if status(&error) == 404 => Err(cluster
                .context
                .namespace_missing(&self.namespace, self.namespace_field)),
            Err(error) => Err(self.failed(cluster, "create", &error)),
        }
    }

    pub async fn get(&self, cluster: &Cluster) -> Result<LeaseState, StageError> {
        match self.api(cluster).get_opt(&self.name).await {
            Ok(None) => Ok(LeaseState::Missing),
            Ok(Some(lease)) if holder(&lease) == self.holder => Ok(LeaseState::Ours(lease)),
            Ok(Some(lease)) => Ok(LeaseState::Theirs(lease)),
            Err(error) => Err(self.failed(cluster, "get", &error)),
        }
    }

    /// Updates the Lease that was read as `seen`: renews it, or takes it over. The first of several writers wins.
    pub async fn replace(&self, cluster: &Cluster, seen: &Lease) -> Result<LeaseState, StageError> {
        self.change(cluster, seen, |lease| self.write_into(lease))
            .await
    }

    /// Clears the holder and keeps the Lease, if we hold it.
    pub async fn clear_holder(&self, cluster: &Cluster, seen: &Lease) -> Result<(), StageError> {
        let clear_holder = |lease: &mut Lease| {
            self.write_into(lease);
            lease.spec.get_or_insert_default().holder_identity = None;
        };
        self.change(cluster, seen, clear_holder).await.map(drop)
    }

    async fn change(
        &self,
        cluster: &Cluster,
        seen: &Lease,
        change: impl Fn(&mut Lease),
    ) -> Result<LeaseState, StageError> {
        let (leases, params) = (self.api(cluster), PostParams::default());
        let mut lease = seen.clone();
        loop {
            change(&mut lease);
            match leases.replace(&self.name, &params, &lease).await {
                Ok(lease) => return Ok(LeaseState::Ours(lease)),
                Err(error) if matches!(status(&error), 404 | 409) => match self.get(cluster).await?
                {
                    // Our own request changed it, and its answer was lost.
                    LeaseState::Ours(now) => lease = now,
                    other => return Ok(other),
                },
                Err(error) => return Err(self.failed(cluster, "update", &error)),
            }
        }
    }

    /// Deletes the Lease if we hold it; `seen` saves a request. With `orphan` the objects it owns stay.
    pub async fn delete(
        &self,
        cluster: &Cluster,
        mut seen: Option<Lease>,
        orphan: bool,
    ) -> Result<(), StageError> {
        loop {
            let lease = match seen.take() {
                Some(lease) => lease,
                None => match self.get(cluster).await? {
                    LeaseState::Ours(lease) => lease,
                    _ => return Ok(()),
                },
            };
            if delete(cluster, &lease, orphan).await? {
                return Ok(());
            }
        }
    }

    /// Renews the Lease until it is lost, and returns the reason. `failed` gets the errors of failed requests.
    pub async fn renew_until_lost(
        &self,
        cluster: &Cluster,
        seen: &mut Lease,
        failed: impl Fn(&StageError),
    ) -> String {
        let period = Duration::from_secs(self.duration.into()) / RENEWALS;
        loop {
            tokio::time::sleep(period).await;
            match self.replace(cluster, seen).await {
                Ok(LeaseState::Ours(lease)) => *seen = lease,
                Ok(LeaseState::Theirs(lease)) => return describe(&lease),
                Ok(LeaseState::Missing) => return "its Lease has been deleted".to_owned(),
                // We hold it until the API says otherwise: others cannot reach the API either.
                Err(error) => failed(&error),
            }
        }
    }
}

/// Deletes this version of the Lease. With `orphan` the objects it owns stay. Returns false if it has changed.
pub async fn delete(cluster: &Cluster, lease: &Lease, orphan: bool) -> Result<bool, StageError> {
    let params = match orphan {
        true => DeleteParams::orphan(),
        false => DeleteParams::background(),
    };
    let params = params.preconditions(Preconditions {
        uid: lease.uid(),
        resource_version: lease.resource_version(),
    });
    let namespace = lease.namespace().unwrap_or_default();
    let leases: Api<Lease> = Api::namespaced(cluster.client.clone(), &namespace);
    match leases.delete(&lease.name_any(), &params).await {
        Ok(_) => Ok(true),
        Err(error) if status(&error) == 404 => Ok(true),
        Err(error) if status(&error) == 409 => Ok(false),
        Err(error) => Err(cluster.failed("delete", LEASES, Some(&namespace), &error)),
    }
}

/// Lists all Leases of a manager; an empty list if the user may not list them.
pub async fn list(
    cluster: &Cluster,
    namespace: Option<&str>,
    manager: &str,
) -> Result<Vec<Lease>, StageError> {
    let leases: Api<Lease> = match namespace {
        Some(namespace) => Api::namespaced(cluster.client.clone(), namespace),
        None => Api::all(cluster.client.clone()),
    };
    let labelled = ListParams::default().labels(&format!("{MANAGED_BY}={manager}"));
    match leases.list(&labelled).await {
        Ok(list) => Ok(list.items),
        Err(error) if status(&error) == 403 => Ok(Vec::new()),
        Err(error) => Err(cluster.failed("list", LEASES, namespace, &error)),
    }
}

/// The holder's identity; empty if no session holds the Lease.
pub fn holder(lease: &Lease) -> &str {
    let spec = lease.spec.as_ref();
    spec.and_then(|spec| spec.holder_identity.as_deref())
        .unwrap_or_default()
}

/// Describes holder and renewal time for a message.
pub fn describe(lease: &Lease) -> String {
    let renewed = lease.spec.as_ref().and_then(|spec| {
        let time = spec.renew_time.as_ref()?.0.strftime("%F %T UTC");
        Some(format!(", which was renewed at {time}"))
    });
    let renewed = renewed.unwrap_or_default();
    format!("session {:?} holds its Lease{renewed}", holder(lease))
}
