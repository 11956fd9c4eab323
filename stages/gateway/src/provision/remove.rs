//! The last one out removes what was installed.

use std::time::Duration;

use cluster::client::Cluster;
use cluster::fault::{self, Attempt};
use cluster::kinds::{Kind, Kinds, Reference};
use cluster::reach::{self, Way};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, ListParams, Preconditions};
use protocol::ledger::Entry;
use protocol::{Context, StageError, Undone};
use tokio::time::Instant;

use super::apply::gone;
use super::lock::{self, Installed, Lock, Terms};
use super::object::Object;
use super::plan::MARK;
use crate::objects::{GatewayObject, gateways, title};
use crate::own::GATEWAY_NAME;
use crate::stage::Gateway;
use crate::survey::GATEWAYS;

/// How long somebody else may hold the Lease.
const PATIENCE: Duration = Duration::from_secs(45);

/// How long a Gateway that is being deleted may take.
const LEAVING: Duration = Duration::from_secs(20);
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Kinds in which somebody may keep something of worth.
const CONTENTS: [(&str, &str); 9] = [
    ("v1", "Pod"),
    ("v1", "Service"),
    ("v1", "ConfigMap"),
    ("v1", "Secret"),
    ("v1", "PersistentVolumeClaim"),
    ("apps/v1", "Deployment"),
    ("apps/v1", "StatefulSet"),
    ("apps/v1", "DaemonSet"),
    ("batch/v1", "Job"),
];

/// The mark of what is installed on the cluster; empty when nothing is.
pub(super) async fn mark(cluster: &Cluster) -> Result<String, StageError> {
    lock::look(cluster).await.map(|installed| installed.mark)
}

/// What the last one out would remove; these Gateways go before it.
pub(crate) async fn left(cluster: &Cluster, going: &[String]) -> Result<Vec<String>, StageError> {
    let installed = lock::look(cluster).await?;
    let used = of_class(cluster, &installed.class).await?;
    if used.iter().any(|it| !going.contains(&title(it))) {
        return Ok(Vec::new());
    }
    let titles = installed.objects.iter().rev().map(Reference::title);
    Ok(titles
        .map(|it| format!("{it} of the installed controller"))
        .collect())
}

/// Undoes a ledger entry.
pub(crate) async fn undo(cx: &Context<Gateway>, entry: &Entry) -> Result<Undone, StageError> {
    let (Some(way), Some(holder)) = (Way::of(entry), entry.data["holder"].as_str()) else {
        return Ok(Undone::Nothing);
    };
    match reach::cluster(&way, &cx.env).await? {
        Some(cluster) => last_one_out(cx, &cluster, holder).await,
        None => Ok(Undone::Nothing),
    }
}

/// Removes what was installed, unless somebody uses it.
pub(crate) async fn last_one_out(
    cx: &Context<Gateway>,
    cluster: &Cluster,
    holder: &str,
) -> Result<Undone, StageError> {
    let terms = Terms {
        holder,
        create: false,
        patience: PATIENCE,
        env: &cx.env,
    };
    let Some(mut lock) = Lock::acquire(cluster, terms, |line| cx.info(line)).await? else {
        return Ok(Undone::Nothing);
    };
    let installed = lock.installed.clone();
    let removed = lock
        .during(async |_| match user(cluster, &installed.class).await? {
            Some(user) => {
                cx.info(format!(
                    "the controller of GatewayClass {} stays: Gateway {user} is of it",
                    installed.class
                ));
                Ok(None)
            }
            None => remove(cx, cluster, &installed).await.map(Some),
        })
        .await;
    match removed {
        Ok(Some(removed)) => {
            lock.delete().await?;
            Ok(match removed.is_empty() {
                true => Undone::Nothing,
                false => Undone::Removed(format!("the controller: {}", removed.join(", "))),
            })
        }
        Ok(None) => lock.release().await.map(|()| Undone::Nothing),
        Err(error) => {
            // It stays on the list, and others may try.
            lock.release().await?;
            Err(error)
        }
    }
}

async fn of_class(cluster: &Cluster, class: &str) -> Result<Vec<GatewayObject>, StageError> {
    match gateways(cluster, None).list(&ListParams::default()).await {
        Ok(mut all) => {
            all.items.retain(|it| it.spec.gateway_class_name == class);
            Ok(all.items)
        }
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(Vec::new()),
        Err(error) => {
            let attempt = Attempt::new("list", GATEWAYS, None);
            Err(fault::of_request(&cluster.peer, &attempt, &error))
        }
    }
}

/// A Gateway of the class; one that is being deleted is waited for.
async fn user(cluster: &Cluster, class: &str) -> Result<Option<String>, StageError> {
    let deadline = Instant::now() + LEAVING;
    loop {
        let of_class = of_class(cluster, class).await?;
        let stays = of_class
            .iter()
            .find(|it| it.metadata.deletion_timestamp.is_none());
        match (stays, of_class.first()) {
            (Some(stays), _) => return Ok(Some(title(stays))),
            (None, None) => return Ok(None),
            (None, Some(leaving)) if Instant::now() > deadline => return Ok(Some(title(leaving))),
            _ => tokio::time::sleep(LOOK_AGAIN).await,
        }
    }
}

/// In the reverse of the order in which it was made; what has not our mark is not ours.
async fn remove(
    cx: &Context<Gateway>,
    cluster: &Cluster,
    installed: &Installed,
) -> Result<Vec<String>, StageError> {
    let mut kinds = Kinds::new(cluster);
    let mut removed = Vec::new();
    for reference in installed.objects.iter().rev() {
        let Some(kind) = kinds.of(reference).await? else {
            continue;
        };
        let api = kind.api(cluster, reference);
        let failed = |verb, error: &kube::Error| {
            fault::of_request(&cluster.peer, &kind.attempt(verb, reference), error)
        };
        let there = api
            .get_opt(&reference.name)
            .await
            .map_err(|error| failed("get", &error))?;
        let Some(there) = there.filter(|it| is_marked(&it.metadata, &installed.mark)) else {
            continue;
        };
        if reference.kind == "Namespace"
            && let Some(other) = foreign(cluster, &mut kinds, reference, &installed.mark).await?
        {
            cx.warn(format!(
                "Namespace {} stays: {other} in it is not ours",
                reference.name
            ));
            continue;
        }
        let exactly = DeleteParams {
            preconditions: Some(Preconditions {
                uid: there.metadata.uid.clone(),
                resource_version: None,
            }),
            ..DeleteParams::background()
        };
        match api.delete(&reference.name, &exactly).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => continue,
            Err(error) => return Err(failed("delete", &error)),
        }
        let object = Object {
            reference: reference.clone(),
            body: serde_json::Value::Null,
        };
        gone(cluster, &kind, &object).await?;
        removed.push(reference.title());
    }
    Ok(removed)
}

fn is_marked(metadata: &ObjectMeta, mark: &str) -> bool {
    metadata
        .labels
        .as_ref()
        .and_then(|all| all.get(MARK))
        .is_some_and(|it| it == mark)
}

/// What is looked for in a namespace before it goes.
fn insides(namespace: &Reference) -> impl Iterator<Item = Reference> {
    CONTENTS.iter().map(|(api_version, kind)| Reference {
        api_version: (*api_version).to_owned(),
        kind: (*kind).to_owned(),
        namespace: Some(namespace.name.clone()),
        name: String::new(),
    })
}

/// What one has to be allowed so that this namespace can go again.
pub(super) async fn attempts(
    cluster: &Cluster,
    namespace: &Reference,
) -> Result<Vec<Attempt>, StageError> {
    let (mut kinds, mut attempts) = (Kinds::new(cluster), Vec::new());
    for any in insides(namespace) {
        let kind = kinds.of(&any).await?;
        attempts.extend(kind.map(|kind| kind.attempt("list", &any)));
    }
    Ok(attempts)
}

/// Something in our namespace that neither we nor what we installed has made, and that would go with it.
async fn foreign(
    cluster: &Cluster,
    kinds: &mut Kinds<'_>,
    namespace: &Reference,
    mark: &str,
) -> Result<Option<String>, StageError> {
    for any in insides(namespace) {
        let Some(kind) = kinds.of(&any).await? else {
            continue;
        };
        let listed = contents(cluster, &kind, &any).await?;
        if let Some(other) = listed.iter().find(|it| !is_ours(it, mark)) {
            let name = other.name.clone().unwrap_or_default();
            return Ok(Some(Reference { name, ..any }.title()));
        }
    }
    Ok(None)
}

async fn contents(
    cluster: &Cluster,
    kind: &Kind,
    any: &Reference,
) -> Result<Vec<ObjectMeta>, StageError> {
    let params = match any.kind.as_str() {
        // The cluster keeps these itself.
        "Secret" => ListParams::default().fields("type!=kubernetes.io/service-account-token"),
        _ => ListParams::default(),
    };
    let listed = kind.api(cluster, any).list_metadata(&params).await;
    listed
        .map(|list| list.items.into_iter().map(|it| it.metadata).collect())
        .map_err(|error| fault::of_request(&cluster.peer, &kind.attempt("list", any), &error))
}

fn is_ours(metadata: &ObjectMeta, mark: &str) -> bool {
    let owned = metadata
        .owner_references
        .as_ref()
        .is_some_and(|all| !all.is_empty());
    let of_gateway = metadata
        .labels
        .as_ref()
        .is_some_and(|all| all.contains_key(GATEWAY_NAME));
    let of_cluster = metadata.name.as_deref() == Some("kube-root-ca.crt");
    owned || of_gateway || of_cluster || is_marked(metadata, mark)
}
