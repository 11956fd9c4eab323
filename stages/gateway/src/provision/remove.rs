//! The last session removes what was installed.

use std::time::Duration;

use cluster::objects::{Discovery, ObjectRef, delete};
use cluster::{Attempt, Cluster, status};
use kube::ResourceExt;
use kube::api::ListParams;
use protocol::{Context, Leftover, StageError};
use tokio::time::Instant;

use super::apply::until_deleted;
use super::lock::{Installed, Lock, LockRequest};
use crate::Gateway;
use crate::lease::GatewayLease;
use crate::objects::{self, GATEWAY_NAME, GATEWAYS, GatewayObject, gateways, title};

/// How long another session may hold the Lease.
const LOCK_TIMEOUT: Duration = Duration::from_secs(45);

/// How long the deletion of a Gateway may take.
const DELETION_TIMEOUT: Duration = Duration::from_secs(20);
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// Kinds in which users may keep data.
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

/// What was installed, unless another Gateway than `going` and those of our own sessions uses it.
pub(crate) async fn leftover<'a>(
    cx: &'a Context<Gateway>,
    cluster: &Cluster,
    holder: String,
    going: &[String],
) -> Result<Option<Leftover<'a>>, StageError> {
    let Some(installed) = Installed::read(cluster).await? else {
        return Ok(None);
    };
    let entries = cx.ledger.entries();
    let ours = entries.iter().filter_map(GatewayLease::from_entry);
    let ours: Vec<String> = ours.map(|it| it.title()).collect();
    let class = &installed.class;
    let used = class_gateways(cluster, class).await?;
    let user = used.iter().find(|it| {
        let title = title(it);
        it.metadata.deletion_timestamp.is_none()
            && !going.contains(&title)
            && !ours.contains(&title)
    });
    if let Some(user) = user {
        log_kept(cx, class, &title(user));
        return Ok(None);
    }
    let objects = installed.objects.iter().rev();
    let title = match objects.map(ObjectRef::title).collect::<Vec<_>>() {
        none if none.is_empty() => "the Lease under which a controller is installed".to_owned(),
        titles => format!("the controller: {}", titles.join(", ")),
    };
    let cluster = cluster.clone();
    Ok(Some(Leftover::new(title, async move {
        remove_if_unused(cx, &cluster, &holder).await
    })))
}

fn log_kept(cx: &Context<Gateway>, class: &str, user: &str) {
    cx.info(format!(
        "the controller of GatewayClass {class} stays: Gateway {user} uses it"
    ));
}

/// Removes what was installed if no Gateway uses it. Returns whether something was removed.
async fn remove_if_unused(
    cx: &Context<Gateway>,
    cluster: &Cluster,
    holder: &str,
) -> Result<bool, StageError> {
    let request = LockRequest {
        holder,
        create: false,
        timeout: LOCK_TIMEOUT,
        env: &cx.env,
    };
    let Some(mut lock) = Lock::acquire(cluster, request, |line| cx.info(line)).await? else {
        return Ok(false);
    };
    let installed = lock.installed.clone();
    let work = async {
        if let Some(user) = gateway_in_use(cluster, &installed.class).await? {
            log_kept(cx, &installed.class, &user);
            return Ok(None);
        }
        remove(cx, cluster, &installed).await.map(Some)
    };
    let removed = lock.while_renewing(work).await;
    if let Ok(Some(removed)) = removed {
        lock.delete().await?;
        return Ok(removed);
    }
    // The rest stays on the list for another attempt.
    lock.release().await?;
    removed.map(|_| false)
}

async fn class_gateways(cluster: &Cluster, class: &str) -> Result<Vec<GatewayObject>, StageError> {
    match gateways(cluster, None).list(&ListParams::default()).await {
        Ok(mut all) => {
            all.items.retain(|it| it.spec.gateway_class_name == class);
            Ok(all.items)
        }
        Err(error) if status(&error) == 404 => Ok(Vec::new()),
        Err(error) => Err(cluster.failed("list", GATEWAYS, None, &error)),
    }
}

/// The title of a Gateway of the class. Waits for those that are being deleted.
async fn gateway_in_use(cluster: &Cluster, class: &str) -> Result<Option<String>, StageError> {
    let deadline = Instant::now() + DELETION_TIMEOUT;
    loop {
        let class_gateways = class_gateways(cluster, class).await?;
        let mut all = class_gateways.iter();
        let stays = all.find(|it| it.metadata.deletion_timestamp.is_none());
        match (stays, class_gateways.first()) {
            (Some(stays), _) => return Ok(Some(title(stays))),
            (None, None) => return Ok(None),
            (None, Some(leaving)) if Instant::now() > deadline => return Ok(Some(title(leaving))),
            _ => tokio::time::sleep(POLL_INTERVAL).await,
        }
    }
}

/// Removes the listed objects with our label, last created first. Returns whether something was removed.
async fn remove(
    cx: &Context<Gateway>,
    cluster: &Cluster,
    installed: &Installed,
) -> Result<bool, StageError> {
    let mut discovery = Discovery::new(cluster);
    let mut removed = false;
    for reference in installed.objects.iter().rev() {
        let Some(kind) = discovery.kind(reference).await? else {
            continue;
        };
        let there = kind.get(reference).await?;
        let Some(there) = there.filter(|it| objects::install_mark(it) == Some(&installed.mark))
        else {
            continue;
        };
        if reference.kind == "Namespace"
            && let Some(other) = find_foreign(&mut discovery, reference, &installed.mark).await?
        {
            cx.warn(format!(
                "Namespace {} stays: it contains {other}, which is not ours",
                reference.name
            ));
            continue;
        }
        let api = kind.api(reference);
        let deleted = delete(&api, &reference.name, there.metadata.uid).await;
        if !deleted.map_err(|error| kind.failed("delete", reference, &error))? {
            continue;
        }
        until_deleted(&kind, reference).await?;
        removed = true;
    }
    Ok(removed)
}

/// The kinds to look for in a namespace before it is deleted.
fn content_kinds(namespace: &ObjectRef) -> impl Iterator<Item = ObjectRef> {
    let any = |(version, kind): &(&str, &str)| ObjectRef::from_kind(version, kind, &namespace.name);
    CONTENTS.iter().map(any)
}

/// The permissions to delete this namespace later.
pub(super) async fn required_attempts(
    cluster: &Cluster,
    namespace: &ObjectRef,
) -> Result<Vec<Attempt>, StageError> {
    let (mut discovery, mut attempts) = (Discovery::new(cluster), Vec::new());
    for any in content_kinds(namespace) {
        let kind = discovery.kind(&any).await?;
        attempts.extend(kind.map(|kind| kind.attempt("list", &any)));
    }
    Ok(attempts)
}

/// An object in our namespace that neither we nor our controller made, and that would be deleted with it.
async fn find_foreign(
    discovery: &mut Discovery<'_>,
    namespace: &ObjectRef,
    mark: &str,
) -> Result<Option<String>, StageError> {
    for any in content_kinds(namespace) {
        let Some(kind) = discovery.kind(&any).await? else {
            continue;
        };
        let params = match any.kind.as_str() {
            // The cluster makes these itself.
            "Secret" => ListParams::default().fields("type!=kubernetes.io/service-account-token"),
            _ => ListParams::default(),
        };
        let listed = kind.api(&any).list_metadata(&params).await;
        let listed = listed.map_err(|error| kind.failed("list", &any, &error))?;
        if let Some(other) = listed.iter().find(|it| !is_ours(*it, mark)) {
            let name = other.name_any();
            return Ok(Some(ObjectRef { name, ..any }.title()));
        }
    }
    Ok(None)
}

fn is_ours(object: &impl ResourceExt, mark: &str) -> bool {
    !object.owner_references().is_empty()
        || object.labels().contains_key(GATEWAY_NAME)
        || object.name_any() == "kube-root-ca.crt"
        || objects::install_mark(object) == Some(mark)
}
