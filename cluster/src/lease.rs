//! Leases: the session that creates a Lease holds what the Lease stands for, as long as it renews it.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::{ListParams, PostParams};
use kube::{Api, ResourceExt};
use protocol::StageError;
use protocol::clock::Moment;
use protocol::identity::{FORMAT, check_format};
use tokio::sync::watch;

use crate::client::Cluster;
use crate::errors::status;
use crate::ours::{Deletion, delete_as_read};

pub const LEASES: &str = "leases.coordination.k8s.io";

/// The label of every object that a stage creates.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";

/// Annotation of a Lease: the run of its holder. A run that reads another one's id has lost the Lease.
const RUN: &str = "devcluster/run";

/// Annotation of a Lease: the instances that share it, each with its run, as in `west=5e1f,east=77a0`.
const INSTANCES: &str = "devcluster/instances";

/// Annotation of a Lease: its user, for people.
const USER: &str = "devcluster/user";

/// Annotation of a Lease: the format of its annotations.
const FORMAT_OF: &str = "devcluster/format";

/// A Lease is renewed this many times per duration, so that a few lost requests do no harm.
pub const RENEWALS: u32 = 10;

/// A Lease as its holder writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseLock {
    pub namespace: String,
    /// The config field that names the namespace.
    pub namespace_field: &'static str,
    pub name: String,
    /// The holder's identity, which all of its runs have.
    pub holder: String,
    /// The run that holds it. `None` if the run does not matter.
    pub run: Option<String>,
    /// The run that held it before, if it is resumed.
    pub before: Option<String>,
    /// Its uid, once the API has confirmed it.
    pub uid: Option<String>,
    /// For a Lease that several instances share: the one that takes part.
    pub instance: Option<String>,
    /// The user, for people.
    pub user: String,
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
        let run = self.run.iter().filter(|_| self.instance.is_none());
        let run = run.map(|run| (RUN.to_owned(), run.clone()));
        let user = (USER.to_owned(), self.user.clone());
        let format = (FORMAT_OF.to_owned(), FORMAT.to_string());
        let annotations = annotations.chain(run).chain([user, format]);
        lease.annotations_mut().extend(annotations);
        if let Some(instance) = &self.instance {
            // What a copy of this machine has left on it is dead.
            let mut all = match self.holds(lease) {
                true => instances(lease),
                false => BTreeMap::new(),
            };
            all.insert(instance.clone(), self.run.clone().unwrap_or_default());
            set_instances(lease, &all);
        }
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
            Err(error) if status(&error) == 409 => match self.get(cluster).await? {
                LeaseState::Ours(lease)
                    if self.instance.is_some() || self.run.as_deref() == run_of(&lease) =>
                {
                    self.replace(cluster, &lease).await
                }
                LeaseState::Ours(lease) => Ok(LeaseState::Theirs(lease)),
                other => Ok(other),
            },
            Err(error) if status(&error) == 404 => Err(cluster
                .context
                .namespace_missing(&self.namespace, self.namespace_field)),
            Err(error) => Err(self.failed(cluster, "create", &error)),
        }
    }

    /// Creates the Lease, or takes it from another session if `may_take` agrees.
    pub async fn acquire(
        &self,
        cluster: &Cluster,
        may_take: impl Fn(&Lease) -> bool,
    ) -> Result<LeaseState, StageError> {
        match self.create(cluster).await? {
            LeaseState::Theirs(theirs) if may_take(&theirs) => self.replace(cluster, &theirs).await,
            outcome => Ok(outcome),
        }
    }

    pub async fn get(&self, cluster: &Cluster) -> Result<LeaseState, StageError> {
        match self.api(cluster).get_opt(&self.name).await {
            Ok(None) => Ok(LeaseState::Missing),
            Ok(Some(lease)) if is_newer(&lease) => Err(newer(&lease)),
            Ok(Some(lease)) if self.holds(&lease) => Ok(LeaseState::Ours(lease)),
            Ok(Some(lease)) => Ok(LeaseState::Theirs(lease)),
            Err(error) => Err(self.failed(cluster, "get", &error)),
        }
    }

    /// Whether it is ours. Others may write our holder, and copies of this machine have it too.
    fn holds(&self, lease: &Lease) -> bool {
        let is_it = self.uid.is_none() || self.uid == lease.uid();
        is_it && holder(lease) == self.holder && self.is_known(self.run_on(lease).as_deref())
    }

    /// The run on it: that of our instance, if several share it.
    pub fn run_on(&self, lease: &Lease) -> Option<String> {
        match &self.instance {
            Some(instance) => instances(lease).remove(instance),
            None => run_of(lease).map(str::to_owned),
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

    /// Whether this run is ours, or the one before it. Releases without runs write none, and an instance that has no part has none.
    fn is_known(&self, run: Option<&str>) -> bool {
        let ours = [&self.run, &self.before];
        self.run.is_none() || run.is_none() || ours.into_iter().any(|it| it.as_deref() == run)
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

    /// Deletes the Lease if we hold it; `seen` saves a request.
    pub async fn delete(
        &self,
        cluster: &Cluster,
        mut seen: Option<Lease>,
    ) -> Result<(), StageError> {
        while let Some(lease) = self.seen_or_read(cluster, &mut seen).await? {
            if delete(cluster, &lease).await? {
                break;
            }
        }
        Ok(())
    }

    /// Our Lease as it was seen, else as it is now; `None` if we do not hold it.
    async fn seen_or_read(
        &self,
        cluster: &Cluster,
        seen: &mut Option<Lease>,
    ) -> Result<Option<Lease>, StageError> {
        match seen.take() {
            None => match self.get(cluster).await? {
                LeaseState::Ours(lease) => Ok(Some(lease)),
                _ => Ok(None),
            },
            seen => Ok(seen),
        }
    }

    /// Takes our instance out of a shared Lease, and deletes the Lease with the last one; `seen` saves a request.
    pub async fn leave(
        &self,
        cluster: &Cluster,
        mut seen: Option<Lease>,
    ) -> Result<(), StageError> {
        let without_us = |lease: &Lease| {
            let mut all = instances(lease);
            all.retain(|it, _| Some(it) != self.instance.as_ref());
            all
        };
        while let Some(lease) = self.seen_or_read(cluster, &mut seen).await? {
            if without_us(&lease).is_empty() {
                if delete(cluster, &lease).await? {
                    return Ok(());
                }
                continue;
            }
            let leave = |lease: &mut Lease| set_instances(lease, &without_us(lease));
            match self.change(cluster, &lease, leave).await? {
                // Others may have left meanwhile.
                LeaseState::Ours(now) if instances(&now).is_empty() => seen = Some(now),
                _ => return Ok(()),
            }
        }
        Ok(())
    }

    /// Renews the Lease until it is lost, and returns the reason. `durations` has the current duration in seconds, and
    /// `tell` gets the news about the renewal.
    pub async fn renew_until_lost(
        &self,
        cluster: &Cluster,
        seen: &mut Lease,
        durations: &mut watch::Receiver<u32>,
        mut tell: impl FnMut(Renewal),
    ) -> String {
        let period = Duration::from_secs(self.duration.into()) / RENEWALS;
        let mut lock = self.clone();
        let mut overdue = Overdue::new(self.duration);
        loop {
            tokio::select! {
                () = tokio::time::sleep(period) => {}
                // Without a sender the duration stays.
                Ok(()) = durations.changed() => {}
            }
            lock.duration = *durations.borrow_and_update();
            match lock.replace(cluster, seen).await {
                Ok(LeaseState::Ours(lease)) => {
                    *seen = lease;
                    overdue = Overdue::new(self.duration);
                    tell(Renewal::Renewed);
                }
                Ok(LeaseState::Theirs(lease)) => return describe(&lease),
                Ok(LeaseState::Missing) => return "its Lease has been deleted".to_owned(),
                // We hold it until the API says otherwise: others cannot reach the API either.
                Err(error) if overdue.is_over() => tell(Renewal::Overdue(error)),
                Err(error) => tell(Renewal::Failed(error)),
            }
        }
    }
}

/// News about the renewal of a Lease.
pub enum Renewal {
    Renewed,
    /// A request failed; the Lease has not expired.
    Failed(StageError),
    /// The same, and the Lease may have expired.
    Overdue(StageError),
}

/// Whether a Lease that was just renewed may have expired by now. Time in which the machine sleeps counts.
struct Overdue {
    since: Option<Moment>,
    waited: tokio::time::Instant,
    duration: u64,
}

impl Overdue {
    fn new(duration: u32) -> Self {
        Self {
            since: Moment::now(),
            waited: tokio::time::Instant::now(),
            duration: duration.into(),
        }
    }

    fn is_over(&self) -> bool {
        let slept = || {
            Some(
                Moment::now()?
                    .seconds
                    .saturating_sub(self.since.as_ref()?.seconds),
            )
        };
        let waited = self.waited.elapsed().as_secs();
        waited.max(slept().unwrap_or(0)) >= self.duration
    }
}

/// Deletes this version of the Lease. Returns false if it has changed.
pub async fn delete(cluster: &Cluster, lease: &Lease) -> Result<bool, StageError> {
    let namespace = lease.namespace().unwrap_or_default();
    let leases: Api<Lease> = Api::namespaced(cluster.client.clone(), &namespace);
    match delete_as_read(&leases, lease).await {
        Ok(done) => Ok(done != Deletion::Changed),
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

/// The run of each instance that shares it.
fn instances(lease: &Lease) -> BTreeMap<String, String> {
    let all = lease.annotations().get(INSTANCES);
    let all = all.into_iter().flat_map(|it| it.split(','));
    let all = all.filter_map(|it| it.split_once('='));
    all.map(|(instance, run)| (instance.to_owned(), run.to_owned()))
        .collect()
}

fn set_instances(lease: &mut Lease, all: &BTreeMap<String, String>) {
    let all = all
        .iter()
        .map(|(instance, run)| format!("{instance}={run}"));
    let all = all.collect::<Vec<_>>().join(",");
    lease.annotations_mut().insert(INSTANCES.to_owned(), all);
}

/// The run of its holder.
fn run_of(lease: &Lease) -> Option<&str> {
    lease.annotations().get(RUN).map(String::as_str)
}

fn format_of(lease: &Lease) -> u64 {
    let format = lease.annotations().get(FORMAT_OF);
    format.and_then(|it| it.parse().ok()).unwrap_or(1)
}

/// Whether a newer release wrote it, which may mean something else by it.
pub fn is_newer(lease: &Lease) -> bool {
    format_of(lease) > FORMAT
}

/// The error for a Lease of a newer release.
fn newer(lease: &Lease) -> StageError {
    let (namespace, name) = (lease.namespace().unwrap_or_default(), lease.name_any());
    let what = format!("the Lease {namespace}/{name}");
    let refused = check_format(format_of(lease), &what);
    refused.err().unwrap_or_else(|| StageError::internal(what))
}

/// The holder for people: the user, or what an older release wrote.
pub fn user(lease: &Lease) -> &str {
    let user = lease.annotations().get(USER);
    user.map_or_else(|| holder(lease), String::as_str)
}

/// Describes holder and renewal time for a message.
pub fn describe(lease: &Lease) -> String {
    let renewed = lease.spec.as_ref().and_then(|spec| {
        let time = spec.renew_time.as_ref()?.0.strftime("%F %T UTC");
        Some(format!(", which was renewed at {time}"))
    });
    let renewed = renewed.unwrap_or_default();
    format!("session {:?} holds its Lease{renewed}", user(lease))
}
