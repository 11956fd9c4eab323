//! What is in a namespace of ours: it is deleted only if every object in it is ours, of every kind that the API serves.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cluster::lease::holder;
use cluster::objects::{self, ApiKind, ObjectRef};
use cluster::ours::Ours;
use cluster::{Attempt, Cluster, status};
use futures::stream::{self, StreamExt, TryStreamExt};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Secret;
use kube::api::ListParams;
use kube::core::{DynamicObject, PartialObjectMeta};
use kube::{Api, ResourceExt};
use protocol::StageError;
use tokio::time::Instant;

/// Parallel requests.
const AT_ONCE: usize = 8;

/// How long Kubernetes may take to delete what deleted objects own.
const COLLECTION_TIMEOUT: Duration = Duration::from_secs(20);
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// Annotation of a Secret that Kubernetes made for a ServiceAccount: the account's uid.
const TOKEN_OF: &str = "kubernetes.io/service-account.uid";

/// The type of such a Secret. Kubernetes deletes one whose account does not exist.
const TOKEN: &str = "type=kubernetes.io/service-account-token";

/// The Leases by which the pods of the controllers that we know elect a leader: Contour's provisioner, and Envoy Gateway.
const ELECTIONS: [&str; 2] = [
    "0d879e31.projectcontour.io",
    "5b9825d2.gateway.envoyproxy.io",
];

/// The contents of namespaces, seen from an installation.
pub(super) struct Contents<'a> {
    cluster: &'a Cluster,
    ours: Ours<'a>,
    /// The starts of the names of the controller's pods.
    pods: Vec<String>,
    /// Uids of deleted objects of ours.
    deleted: BTreeSet<String>,
}

type Found = (ObjectRef, PartialObjectMeta<DynamicObject>);

impl<'a> Contents<'a> {
    pub(super) fn new(cluster: &'a Cluster, ours: Ours<'a>, installed: &[ObjectRef]) -> Self {
        let deployments = installed.iter().filter(|it| it.kind == "Deployment");
        Self {
            cluster,
            ours,
            pods: deployments.map(|it| format!("{}-", it.name)).collect(),
            deleted: BTreeSet::new(),
        }
    }

    /// What this object owns is ours too.
    pub(super) fn record_deleted(&mut self, object: &impl ResourceExt) {
        self.deleted.extend(object.uid());
    }

    /// The title of an object in the namespace that is not ours. Waits for what Kubernetes is about to delete.
    pub(super) async fn find_foreign(&self, namespace: &str) -> Result<Option<String>, StageError> {
        let kinds = objects::namespaced_kinds(self.cluster).await?;
        let deadline = Instant::now() + COLLECTION_TIMEOUT;
        loop {
            let all = self.list(&kinds, namespace).await?;
            let ours = self.all_ours(&all, &self.tokens(namespace).await?);
            let mut foreign = Vec::new();
            for (reference, object) in &all {
                let is_ours = object.uid().is_some_and(|uid| ours.contains(&uid));
                if !is_ours && !self.is_election(reference).await? {
                    foreign.push((reference, object));
                }
            }
            let Some((first, _)) = foreign.first() else {
                return Ok(None);
            };
            // The owner of an object may have been deleted by an earlier attempt.
            let is_going = |it: &&PartialObjectMeta<DynamicObject>| {
                !it.owner_references().is_empty() || it.metadata.deletion_timestamp.is_some()
            };
            if !foreign.iter().all(|(_, it)| is_going(it)) || Instant::now() > deadline {
                return Ok(Some(first.title()));
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    async fn list(&self, kinds: &[ApiKind], namespace: &str) -> Result<Vec<Found>, StageError> {
        let of_kind = async |kind: &ApiKind| {
            let any = kind.all_in(namespace);
            let listed = kind.api(&any).list_metadata(&ListParams::default()).await;
            let listed = match listed {
                Ok(list) => list.items,
                // The kind has just been removed, or has no objects of its own.
                Err(error) if matches!(status(&error), 404 | 405) => Vec::new(),
                Err(error) => return Err(kind.failed("list", &any, &error)),
            };
            let found = listed.into_iter().map(|it| {
                let name = it.name_any();
                (
                    ObjectRef {
                        name,
                        ..any.clone()
                    },
                    it,
                )
            });
            Ok(found.collect::<Vec<Found>>())
        };
        let lists = stream::iter(kinds.iter().map(of_kind)).buffered(AT_ONCE);
        let lists: Vec<Vec<Found>> = lists.try_collect().await?;
        Ok(lists.into_iter().flatten().collect())
    }

    /// The uids of what carries our mark, of what Kubernetes makes in every namespace, and of what these own.
    fn all_ours(&self, all: &[Found], tokens: &BTreeMap<String, String>) -> BTreeSet<String> {
        let mut ours = self.deleted.clone();
        loop {
            let before = ours.len();
            for (reference, object) in all {
                let owners = object.owner_references().iter().map(|it| &it.uid);
                let token = object.uid().and_then(|uid| tokens.get(&uid));
                let is_owned = owners.chain(token).any(|uid| ours.contains(uid));
                if is_owned || is_default(reference) || self.ours.includes(object) {
                    ours.extend(object.uid());
                }
            }
            if ours.len() == before {
                return ours;
            }
        }
    }

    /// The account's uid of each token, by the uid of its Secret.
    async fn tokens(&self, namespace: &str) -> Result<BTreeMap<String, String>, StageError> {
        let secrets: Api<Secret> = Api::namespaced(self.cluster.client.clone(), namespace);
        let tokens = ListParams::default().fields(TOKEN);
        let listed = secrets.list_metadata(&tokens).await.map_err(|error| {
            self.cluster
                .failed("list", "secrets", Some(namespace), &error)
        })?;
        let listed = listed.items.into_iter();
        let token = |mut it: PartialObjectMeta<Secret>| {
            Some((it.uid()?, it.annotations_mut().remove(TOKEN_OF)?))
        };
        Ok(listed.filter_map(token).collect())
    }

    /// Whether it is the Lease by which the pods of the controller elect a leader.
    async fn is_election(&self, reference: &ObjectRef) -> Result<bool, StageError> {
        if reference.kind != "Lease" || !ELECTIONS.contains(&reference.name.as_str()) {
            return Ok(false);
        }
        let namespace = reference.namespace.as_deref().unwrap_or_default();
        let leases: Api<Lease> = Api::namespaced(self.cluster.client.clone(), namespace);
        let lease = leases.get_opt(&reference.name).await.map_err(|error| {
            let resource = cluster::lease::LEASES;
            self.cluster
                .failed("get", resource, Some(namespace), &error)
        })?;
        let is_pod = |it: &Lease| {
            let held = holder(it);
            held.is_empty() || self.pods.iter().any(|pod| held.starts_with(pod))
        };
        Ok(lease.as_ref().is_none_or(is_pod))
    }
}

/// What Kubernetes makes in every namespace.
fn is_default(reference: &ObjectRef) -> bool {
    match (reference.kind.as_str(), reference.name.as_str()) {
        ("Event", _) => true,
        ("ServiceAccount", name) => name == "default",
        ("ConfigMap", name) => name == "kube-root-ca.crt",
        _ => false,
    }
}

/// The permission to look for objects of others in a namespace before it is deleted.
pub(super) fn required_attempt(namespace: &ObjectRef) -> Attempt {
    Attempt::new("list", "*.*", Some(&namespace.name))
}
