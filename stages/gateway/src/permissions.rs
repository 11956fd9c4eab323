//! Whether we and the master may do what we are going to do: one access review for each verb, side by side.

use futures::future::join_all;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::Api;
use kube::api::PostParams;
use protocol::StageError;

use crate::client::Cluster;
use crate::fault::{self, Attempt};
use crate::lease::LEASES;
use crate::survey::GATEWAYS;

const TCP_ROUTES: &str = "tcproutes.gateway.networking.k8s.io";
const SERVICES: &str = "services";

/// What the master does with its Gateway, and what it makes for each port of a task.
const MASTER: [(&str, &[&str]); 3] = [
    (GATEWAYS, &["get", "update"]),
    (TCP_ROUTES, &["list", "create", "delete"]),
    (SERVICES, &["list", "create", "delete"]),
];

const SESSION: [&str; 4] = ["get", "create", "update", "delete"];

const OWN_GATEWAY: [&str; 2] = ["create", "delete"];

/// Everything that a session and its master need, on a Gateway that is `made` or on another, reviewed side by side.
pub(crate) async fn review(
    cluster: &Cluster,
    namespace: &str,
    task_namespace: &str,
    made: bool,
) -> Result<(), StageError> {
    let mut needed = master(namespace, task_namespace);
    needed.extend(session(namespace));
    if made {
        needed.extend(own_gateway(namespace));
    }
    refuse_denied(cluster, &needed).await
}

/// The first of these that the user may not do is the error, the others its causes.
pub(crate) async fn refuse_denied(cluster: &Cluster, needed: &[Attempt]) -> Result<(), StageError> {
    let denied = join_all(needed.iter().map(|attempt| denies(cluster, attempt))).await;
    let mut denied = needed
        .iter()
        .zip(denied)
        .filter(|(_, denied)| *denied)
        .map(|(attempt, _)| attempt);
    let Some(first) = denied.next() else {
        return Ok(());
    };
    let mut error = fault::forbidden(&cluster.peer, first);
    error
        .caused_by
        .extend(denied.map(|other| format!("nor may it {}", other.describe())));
    Err(error)
}

fn attempts(resource: &'static str, verbs: &[&'static str], namespace: &str) -> Vec<Attempt> {
    let all = verbs
        .iter()
        .map(|verb| Attempt::new(verb, resource, Some(namespace)));
    all.collect()
}

/// What the master does.
pub(crate) fn master(namespace: &str, task_namespace: &str) -> Vec<Attempt> {
    let needed = MASTER.iter().flat_map(|(resource, verbs)| {
        let namespace = if *resource == GATEWAYS {
            namespace
        } else {
            task_namespace
        };
        attempts(resource, verbs, namespace)
    });
    needed.collect()
}

/// What a session does with its Lease.
pub(crate) fn session(namespace: &str) -> Vec<Attempt> {
    attempts(LEASES, &SESSION, namespace)
}

/// What it does with a Gateway of its own.
pub(crate) fn own_gateway(namespace: &str) -> Vec<Attempt> {
    attempts(GATEWAYS, &OWN_GATEWAY, namespace)
}

/// Not knowing is no reason to refuse: whoever tries will see.
async fn denies(cluster: &Cluster, attempt: &Attempt) -> bool {
    let (resource, group) = attempt
        .resource
        .split_once('.')
        .unwrap_or((&attempt.resource, ""));
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(ResourceAttributes {
                verb: Some(attempt.verb.to_owned()),
                group: Some(group.to_owned()),
                resource: Some(resource.to_owned()),
                namespace: Some(attempt.namespace.clone()),
                ..ResourceAttributes::default()
            }),
            ..SelfSubjectAccessReviewSpec::default()
        },
        ..SelfSubjectAccessReview::default()
    };
    let reviews: Api<SelfSubjectAccessReview> = Api::all(cluster.client.clone());
    let answer = reviews.create(&PostParams::default(), &review).await;
    matches!(answer.map(|review| review.status), Ok(Some(status)) if !status.allowed)
}
