//! The last session removes what was installed.

use std::time::Duration;

use cluster::objects::{Discovery, ObjectRef};
use cluster::ours::{self, Ours};
use cluster::{Cluster, status};
use kube::ResourceExt;
use kube::api::ListParams;
use protocol::{Context, Leftover, Removal, StageError};
use tokio::time::Instant;

use super::apply::until_deleted;
use super::contents::Contents;
use super::lock::{Installed, Lock, LockRequest};
use crate::Gateway;
use crate::controller_objects;
use crate::lease::{GatewayLease, user};
use crate::leftovers;
use crate::objects::{
    self, CLASSES, ClassObject, GATEWAYS, GatewayObject, INSTALLED, gateways, title,
};

/// How long another session may hold the Lease.
const LOCK_TIMEOUT: Duration = Duration::from_secs(45);

/// How long the deletion of a Gateway may take.
const DELETION_TIMEOUT: Duration = Duration::from_secs(20);
const POLL_INTERVAL: Duration = Duration::from_millis(500);

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
    // Those of our own sessions that go too.
    let mut ours = Vec::new();
    for entry in cx.ledger.entries() {
        let lease = GatewayLease::from_entry(&entry);
        if let Some(lease) = lease
            && !leftovers::stays(cx, cluster, &entry, &lease).await?
        {
            ours.push(lease.title());
        }
    }
    let class = &installed.class;
    let used = gateways_of(cluster, &installed).await?;
    let user = used.iter().find(|it| {
        let title = title(it);
        it.metadata.deletion_timestamp.is_none()
            && !going.contains(&title)
            && !ours.contains(&title)
    });
    if let Some(user) = user {
        log_kept(cx, class, &title(user));
        return Ok(Some(Leftover::new("", async { Ok(Removal::Deferred) })));
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

/// Removes what was installed if no Gateway uses it.
async fn remove_if_unused(
    cx: &Context<Gateway>,
    cluster: &Cluster,
    holder: &str,
) -> Result<Removal, StageError> {
    let request = LockRequest {
        holder,
        user: user(cx),
        create: false,
        timeout: LOCK_TIMEOUT,
        env: &cx.env,
    };
    let Some(mut lock) = Lock::acquire(cluster, request, |line| cx.info(line)).await? else {
        return Ok(Removal::Gone);
    };
    let installed = lock.installed.clone();
    let work = async {
        if let Some(user) = gateway_in_use(cluster, &installed).await? {
            log_kept(cx, &installed.class, &user);
            return Ok(None);
        }
        if let Some(child) = controller_objects::until_all_removed(cluster).await? {
            cx.info(format!("the controller stays until it has removed {child}"));
            return Ok(None);
        }
        remove(cx, cluster, &installed).await.map(Some)
    };
    let removed = lock.while_renewing(work).await;
    if let Ok(Some(removed)) = removed {
        lock.delete().await?;
        return Ok(removed.into());
    }
    // The rest stays on the list for another attempt.
    lock.release().await?;
    removed.map(|_| Removal::Deferred)
}

/// The Gateways that the installed controller serves: of every class that names it, whoever made the class.
async fn gateways_of(
    cluster: &Cluster,
    installed: &Installed,
) -> Result<Vec<GatewayObject>, StageError> {
    let classes = match objects::classes(cluster).list(&ListParams::default()).await {
        Ok(list) => list.items,
        Err(error) if status(&error) == 404 => Vec::new(),
        Err(error) => return Err(cluster.failed("list", CLASSES, None, &error)),
    };
    // By the label, which only who may change the class can write: anyone with a Lease writes the list.
    let is_ours = |it: &&ClassObject| objects::install_mark(*it) == Some(&installed.mark);
    let ours = classes.iter().filter(is_ours);
    let controllers: Vec<&str> = ours.map(|it| it.spec.controller_name.as_str()).collect();
    let served = classes
        .iter()
        .filter(|it| controllers.contains(&it.spec.controller_name.as_str()));
    let mut served: Vec<String> = served.map(ResourceExt::name_any).collect();
    served.push(installed.class.clone());
    match gateways(cluster, None).list(&ListParams::default()).await {
        Ok(mut all) => {
            all.items
                .retain(|it| served.contains(&it.spec.gateway_class_name));
            Ok(all.items)
        }
        Err(error) if status(&error) == 404 => Ok(Vec::new()),
        Err(error) => Err(cluster.failed("list", GATEWAYS, None, &error)),
    }
}

/// The title of a Gateway that uses it. Waits for those that are being deleted.
async fn gateway_in_use(
    cluster: &Cluster,
    installed: &Installed,
) -> Result<Option<String>, StageError> {
    let deadline = Instant::now() + DELETION_TIMEOUT;
    loop {
        let used = gateways_of(cluster, installed).await?;
        let mut all = used.iter();
        let stays = all.find(|it| it.metadata.deletion_timestamp.is_none());
        match (stays, used.first()) {
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
    let ours = Ours {
        mark: (INSTALLED, &installed.mark),
        session: None,
    };
    let mut contents = Contents::new(cluster, ours, &installed.objects);
    let mut removed = false;
    for reference in installed.objects.iter().rev() {
        let Some(kind) = discovery.kind(reference).await? else {
            continue;
        };
        let there = kind.get(reference).await?;
        let Some(there) = there.filter(|it| ours.includes(it)) else {
            continue;
        };
        if reference.kind == "Namespace"
            && let Some(other) = contents.find_foreign(&reference.name).await?
        {
            cx.warn(format!(
                "Namespace {} stays: it contains {other}, which is not ours",
                reference.name
            ));
            continue;
        }
        let deleted = ours::delete(&kind.api(reference), &reference.name, ours).await;
        if !deleted.map_err(|error| kind.failed("delete", reference, &error))? {
            continue;
        }
        contents.record_deleted(&there);
        until_deleted(&kind, reference).await?;
        removed = true;
    }
    Ok(removed)
}
