//! The permissions of a session and its master.

use std::collections::BTreeSet;

use cluster::lease::LEASES;
use cluster::permissions::require;
use cluster::{Attempt, Cluster};
use protocol::StageError;

use crate::objects::{GATEWAYS, SERVICES, TCP_ROUTES};

/// What the master does with its Gateway, and what it makes for each port of a task.
const MASTER: [(&str, &[&str]); 3] = [
    (GATEWAYS, &["get", "update"]),
    (TCP_ROUTES, &["list", "create", "delete"]),
    (SERVICES, &["list", "create", "delete"]),
];

/// Reviews all permissions of a session and its master in parallel; a `made` Gateway needs more.
pub(crate) async fn review(
    cluster: &Cluster,
    namespace: &str,
    task_namespace: &str,
    made: bool,
) -> Result<(), StageError> {
    let mut needed = master(namespace, task_namespace);
    needed.extend(leases(namespace, task_namespace));
    if made {
        needed.extend(own_gateway(namespace));
    }
    require(cluster, &needed).await
}

fn attempts(resource: &'static str, verbs: &[&'static str], namespace: &str) -> Vec<Attempt> {
    let attempt = |verb: &&'static str| Attempt::new(verb, resource, Some(namespace));
    verbs.iter().map(attempt).collect()
}

/// The permissions of the master.
pub(crate) fn master(namespace: &str, task_namespace: &str) -> Vec<Attempt> {
    let needed = MASTER.iter().flat_map(|(resource, verbs)| match *resource {
        GATEWAYS => attempts(resource, verbs, namespace),
        _ => attempts(resource, verbs, task_namespace),
    });
    needed.collect()
}

/// The permissions of a session on its Leases.
pub(crate) fn leases(namespace: &str, task_namespace: &str) -> Vec<Attempt> {
    let namespaces = BTreeSet::from([namespace, task_namespace]).into_iter();
    let verbs = ["get", "create", "update", "delete"];
    namespaces
        .flat_map(|it| attempts(LEASES, &verbs, it))
        .collect()
}

/// The permissions for a Gateway of our own.
pub(crate) fn own_gateway(namespace: &str) -> Vec<Attempt> {
    attempts(GATEWAYS, &["create", "delete"], namespace)
}
