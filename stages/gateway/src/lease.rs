//! The Lease by which a session holds a Gateway: nobody else takes that Gateway while the Lease is renewed.
//!
//! It is named after its Gateway, in the Gateway's namespace, so that making it is the mutex. A Gateway that we made names
//! its Lease as its owner: whoever deletes the Lease of a dead session has Kubernetes collect that Gateway.

use std::collections::BTreeMap;

use cluster::client::Cluster;
use cluster::fault::{self, Attempt};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{DeleteParams, ListParams, PostParams, Preconditions, PropagationPolicy};
use protocol::StageError;

pub(crate) const LEASES: &str = "leases.coordination.k8s.io";

/// The label of everything that we make, and the name of our fields' manager.
pub(crate) const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
pub(crate) const MANAGER: &str = "devcluster-gateway";

/// On a Lease: the Gateway was made by its session, and goes with it.
const MADE: &str = "devcluster-gateway/made";

const PREFIX: &str = "devcluster-gateway-";

/// A Lease that somebody wants to have or has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) namespace: String,
    pub(crate) gateway: String,
    /// No two sessions have the same.
    pub(crate) holder: String,
    /// Seconds.
    pub(crate) duration: u32,
    /// Whether the Gateway is made for this session.
    pub(crate) made: bool,
}

impl Claim {
    fn name(&self) -> String {
        format!("{PREFIX}{}", self.gateway)
    }

    pub(crate) fn title(&self) -> String {
        format!("{}/{}", self.namespace, self.gateway)
    }

    fn write_into(&self, lease: &mut Lease) {
        let now = MicroTime(Timestamp::now());
        let metadata = &mut lease.metadata;
        let labels = metadata.labels.get_or_insert_default();
        labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
        let annotations = metadata.annotations.get_or_insert_default();
        annotations.insert(MADE.to_owned(), self.made.to_string());
        let spec = lease.spec.get_or_insert_default();
        spec.holder_identity = Some(self.holder.clone());
        spec.lease_duration_seconds = i32::try_from(self.duration).ok();
        spec.acquire_time = Some(now.clone());
        spec.renew_time = Some(now);
    }
}

pub(crate) fn api(cluster: &Cluster, namespace: Option<&str>) -> Api<Lease> {
    match namespace {
        Some(namespace) => Api::namespaced(cluster.client.clone(), namespace),
        None => Api::all(cluster.client.clone()),
    }
}

/// What became of a request to take or renew.
#[derive(Debug)]
pub(crate) enum Outcome {
    Ours(Box<Lease>),
    /// Somebody else's, as it is.
    Theirs(Box<Lease>),
    /// There is none any more.
    Gone,
}

/// Makes the Lease.
pub(crate) async fn create(cluster: &Cluster, claim: &Claim) -> Result<Outcome, StageError> {
    let mut lease = Lease {
        metadata: ObjectMeta {
            name: Some(claim.name()),
            namespace: Some(claim.namespace.clone()),
            ..ObjectMeta::default()
        },
        ..Lease::default()
    };
    claim.write_into(&mut lease);
    let leases = api(cluster, Some(&claim.namespace));
    match leases.create(&PostParams::default(), &lease).await {
        Ok(lease) => Ok(Outcome::Ours(Box::new(lease))),
        // Also when the answer to our own first try was lost and the client tried again.
        Err(kube::Error::Api(status)) if status.code == 409 => get(cluster, claim).await,
        Err(kube::Error::Api(status)) if status.code == 404 => Err(namespace_missing(
            cluster,
            &claim.namespace,
            "gateway_namespace",
        )),
        Err(error) => Err(failed(cluster, claim, "create", &error)),
    }
}

pub(crate) async fn get(cluster: &Cluster, claim: &Claim) -> Result<Outcome, StageError> {
    let leases = api(cluster, Some(&claim.namespace));
    match leases.get_opt(&claim.name()).await {
        Ok(None) => Ok(Outcome::Gone),
        Ok(Some(lease)) => Ok(of(lease, claim)),
        Err(error) => Err(failed(cluster, claim, "get", &error)),
    }
}

fn of(lease: Lease, claim: &Claim) -> Outcome {
    if holder(&lease) == claim.holder {
        Outcome::Ours(Box::new(lease))
    } else {
        Outcome::Theirs(Box::new(lease))
    }
}

/// Puts our claim in the place of what `seen` says; somebody who was faster wins.
pub(crate) async fn replace(
    cluster: &Cluster,
    claim: &Claim,
    seen: &Lease,
) -> Result<Outcome, StageError> {
    let mut lease = seen.clone();
    let renews = holder(seen) == claim.holder;
    let acquired = seen
        .spec
        .as_ref()
        .and_then(|spec| spec.acquire_time.clone());
    claim.write_into(&mut lease);
    if let Some(spec) = lease.spec.as_mut() {
        if renews {
            spec.acquire_time = acquired;
        } else {
            spec.lease_transitions = Some(spec.lease_transitions.unwrap_or(0) + 1);
        }
    }
    let leases = api(cluster, Some(&claim.namespace));
    match leases
        .replace(&claim.name(), &PostParams::default(), &lease)
        .await
    {
        Ok(lease) => Ok(Outcome::Ours(Box::new(lease))),
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {
            get(cluster, claim).await
        }
        Err(error) => Err(failed(cluster, claim, "update", &error)),
    }
}

/// Deletes exactly this one. With `orphan` the Gateway that it owns stays. False: it has changed since it was read.
pub(crate) async fn delete(
    cluster: &Cluster,
    lease: &Lease,
    orphan: bool,
) -> Result<bool, StageError> {
    let metadata = &lease.metadata;
    let namespace = metadata.namespace.as_deref();
    let policy = if orphan {
        PropagationPolicy::Orphan
    } else {
        PropagationPolicy::Background
    };
    let params = DeleteParams {
        propagation_policy: Some(policy),
        preconditions: Some(Preconditions {
            uid: metadata.uid.clone(),
            resource_version: metadata.resource_version.clone(),
        }),
        ..DeleteParams::default()
    };
    let name = metadata.name.as_deref().unwrap_or_default();
    match api(cluster, namespace).delete(name, &params).await {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(fault::of_request(
            &cluster.peer,
            &Attempt::new("delete", LEASES, namespace),
            &error,
        )),
    }
}

/// All Leases of sessions; none when they may not be listed: taking one tells in the end.
pub(crate) async fn list(
    cluster: &Cluster,
    namespace: Option<&str>,
) -> Result<Vec<Lease>, StageError> {
    let ours = ListParams::default().labels(&format!("{MANAGED_BY}={MANAGER}"));
    match api(cluster, namespace).list(&ours).await {
        Ok(list) => Ok(list.items),
        Err(kube::Error::Api(status)) if status.code == 403 => Ok(Vec::new()),
        Err(error) => Err(fault::of_request(
            &cluster.peer,
            &Attempt::new("list", LEASES, namespace),
            &error,
        )),
    }
}

/// The Gateway that this Lease is for, as `namespace/name`.
pub(crate) fn title(lease: &Lease) -> Option<String> {
    let namespace = lease.metadata.namespace.as_ref()?;
    let gateway = lease.metadata.name.as_ref()?.strip_prefix(PREFIX)?;
    Some(format!("{namespace}/{gateway}"))
}

/// What its session had.
pub(crate) fn claim(lease: &Lease) -> Option<Claim> {
    Some(Claim {
        namespace: lease.metadata.namespace.clone()?,
        gateway: lease
            .metadata
            .name
            .as_ref()?
            .strip_prefix(PREFIX)?
            .to_owned(),
        holder: holder(lease).to_owned(),
        duration: 0,
        made: made(lease),
    })
}

pub(crate) fn holder(lease: &Lease) -> &str {
    let spec = lease.spec.as_ref();
    spec.and_then(|spec| spec.holder_identity.as_deref())
        .unwrap_or_default()
}

/// Whether its Gateway was made by its session.
pub(crate) fn made(lease: &Lease) -> bool {
    let annotations: Option<&BTreeMap<String, String>> = lease.metadata.annotations.as_ref();
    annotations
        .and_then(|all| all.get(MADE))
        .is_some_and(|made| made == "true")
}

/// For people: who, and since when nothing was heard.
pub(crate) fn describe(lease: &Lease) -> String {
    let default = LeaseSpec::default();
    let spec = lease.spec.as_ref().unwrap_or(&default);
    let renewed = spec.renew_time.as_ref().map_or_else(String::new, |time| {
        format!(", which was renewed at {}", time.0.strftime("%F %T UTC"))
    });
    format!("session {:?} holds it by a Lease{renewed}", holder(lease))
}

fn failed(cluster: &Cluster, claim: &Claim, verb: &'static str, error: &kube::Error) -> StageError {
    let attempt = Attempt::new(verb, LEASES, Some(&claim.namespace));
    fault::of_request(&cluster.peer, &attempt, error)
}

/// `field` is that of the config which names it.
pub(crate) fn namespace_missing(cluster: &Cluster, namespace: &str, field: &str) -> StageError {
    StageError::new(
        "gateway.namespace_missing",
        format!(
            "there is no namespace {namespace} on the cluster of context {:?}",
            cluster.peer.context
        ),
    )
    .hint(format!(
        "`kubectl create namespace {namespace}`, or set `{field}` to one that exists"
    ))
}
