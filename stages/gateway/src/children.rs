//! What a controller made for a Gateway of ours: it removes that itself once the Gateway is deleted. A controller that is
//! gone does not, and then we do.

use std::time::Duration;

use cluster::client::Cluster;
use cluster::fault;
use cluster::kinds::{Kinds, Reference};
use kube::api::{DeleteParams, ListParams, Preconditions};
use protocol::StageError;
use tokio::time::Instant;

use crate::lease::Claim;
use crate::own::GATEWAY_NAME;

/// How long a controller may take.
const PATIENCE: Duration = Duration::from_secs(20);
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// What runs or costs something; while it is there, the rest is too.
const RUNNING: [(&str, &str); 3] = [
    ("v1", "Service"),
    ("apps/v1", "Deployment"),
    ("apps/v1", "DaemonSet"),
];

const REST: [(&str, &str); 8] = [
    ("v1", "ConfigMap"),
    ("v1", "Secret"),
    ("v1", "ServiceAccount"),
    ("rbac.authorization.k8s.io/v1", "RoleBinding"),
    ("rbac.authorization.k8s.io/v1", "Role"),
    ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding"),
    ("rbac.authorization.k8s.io/v1", "ClusterRole"),
    ("projectcontour.io/v1alpha1", "ContourConfiguration"),
];

/// Waits until the controller has removed it, and else removes it. Says what we had to remove.
pub(crate) async fn sweep(cluster: &Cluster, claim: &Claim) -> Result<Vec<String>, StageError> {
    let deadline = Instant::now() + PATIENCE;
    let mut kinds = Kinds::new(cluster);
    loop {
        if all(cluster, &mut kinds, claim, &RUNNING).await?.is_empty() {
            return Ok(Vec::new());
        }
        if Instant::now() > deadline {
            break;
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    let mut removed = Vec::new();
    for child in all(
        cluster,
        &mut kinds,
        claim,
        &[&RUNNING[..], &REST[..]].concat(),
    )
    .await?
    {
        delete(cluster, &mut kinds, claim, &child).await?;
        removed.push(child.reference.title());
    }
    Ok(removed)
}

/// What is there of it.
pub(crate) async fn left(cluster: &Cluster, claim: &Claim) -> Result<Vec<String>, StageError> {
    let mut kinds = Kinds::new(cluster);
    let of = [&RUNNING[..], &REST[..]].concat();
    let children = all(cluster, &mut kinds, claim, &of).await?;
    Ok(children.iter().map(|it| it.reference.title()).collect())
}

struct Child {
    reference: Reference,
    uid: Option<String>,
}

/// Controllers put the Gateway's name on what they make for it, and no other Gateway ever had ours.
async fn all(
    cluster: &Cluster,
    kinds: &mut Kinds<'_>,
    claim: &Claim,
    of: &[(&str, &str)],
) -> Result<Vec<Child>, StageError> {
    let labelled = ListParams::default().labels(&format!("{GATEWAY_NAME}={}", claim.gateway));
    let mut children = Vec::new();
    for (api_version, kind) in of {
        let any = Reference {
            api_version: (*api_version).to_owned(),
            kind: (*kind).to_owned(),
            namespace: Some(claim.namespace.clone()),
            name: String::new(),
        };
        let Some(kind) = kinds.of(&any).await? else {
            continue;
        };
        let listed = match kind.api(cluster, &any).list_metadata(&labelled).await {
            Ok(list) => list.items,
            // Not ours to know then.
            Err(kube::Error::Api(status)) if status.code == 403 => continue,
            Err(error) => {
                return Err(fault::of_request(
                    &cluster.peer,
                    &kind.attempt("list", &any),
                    &error,
                ));
            }
        };
        children.extend(listed.into_iter().map(|it| Child {
            reference: Reference {
                namespace: it.metadata.namespace,
                name: it.metadata.name.unwrap_or_default(),
                ..any.clone()
            },
            uid: it.metadata.uid,
        }));
    }
    Ok(children)
}

async fn delete(
    cluster: &Cluster,
    kinds: &mut Kinds<'_>,
    claim: &Claim,
    child: &Child,
) -> Result<(), StageError> {
    let Some(kind) = kinds.of(&child.reference).await? else {
        return Ok(());
    };
    let exactly = DeleteParams {
        preconditions: Some(Preconditions {
            uid: child.uid.clone(),
            resource_version: None,
        }),
        ..DeleteParams::background()
    };
    match kind
        .api(cluster, &child.reference)
        .delete(&child.reference.name, &exactly)
        .await
    {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        Err(error) => {
            let message = format!(
                "Gateway {} is deleted, but its controller has not removed {}",
                claim.title(),
                child.reference.title()
            );
            let refused = fault::of_request(
                &cluster.peer,
                &kind.attempt("delete", &child.reference),
                &error,
            );
            Err(StageError::new("gateway.children_left", message)
                .cause(refused.message)
                .hint("is the controller running? `devcluster-remote gc` looks again")
                .retryable(true))
        }
    }
}
