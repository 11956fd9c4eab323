//! What dead runs left: one list, to print and to remove.

use std::time::Duration;

use cluster::lease::{LeaseLock, LeaseState};
use cluster::{Cluster, ClusterRef, lease_expiry};
use k8s_openapi::api::coordination::v1::Lease;
use protocol::ledger::{Entry, Parked};
use protocol::{Context, Leftover, Removal, StageError};

use crate::Gateway;
use crate::lease::{GatewayLease, SESSION, user};
use crate::tasks::{self, Tasks};
use crate::{
    controller_objects, dedicated, gc, kubeconfig_file, objects, owned, provision, task_namespace,
};

pub(crate) async fn leftovers<'a>(
    cx: &'a Context<Gateway>,
    entry: &'a Entry,
) -> Result<Vec<Leftover<'a>>, StageError> {
    if entry.what == kubeconfig_file::KIND {
        return Ok(kubeconfig_file::leftover(&entry.data).into_iter().collect());
    }
    let Some(reference) = ClusterRef::from_entry(entry) else {
        return Ok(Vec::new());
    };
    let cluster = match Cluster::from_ledger(&reference, &cx.env).await {
        Ok(Some(cluster)) => cluster,
        Ok(None) => return Ok(vec![away(cx, entry, &reference)]),
        Err(error) if entry.what == gc::OTHERS => {
            return Ok(vec![gc::deferred(cx, &error)]);
        }
        Err(error) => return Err(error),
    };
    if is_foreign(cx, entry)?
        && let Some(waits) = foreign(cx, &cluster, entry).await?
    {
        return Ok(vec![waits]);
    }
    let holder = entry.data["holder"].as_str();
    let mut left = match (entry.what.as_str(), holder) {
        (SESSION, _) => match GatewayLease::from_entry(entry) {
            Some(lease) => match parked(cx, &cluster, entry, &lease).await? {
                Some(parked) => vec![parked],
                None => session_leftovers(&cluster, &lease).await?,
            },
            None => Vec::new(),
        },
        (provision::KIND, Some(holder)) => {
            let left = provision::leftover(cx, &cluster, holder.to_owned(), &[]);
            Vec::from_iter(left.await?)
        }
        (task_namespace::KIND, _) => {
            Vec::from_iter(task_namespace::leftover(cx, &cluster, entry).await?)
        }
        (owned::KIND, _) => Vec::from_iter(owned::leftover(cx, &cluster, entry).await?),
        (gc::OTHERS, _) => gc::leftovers(cx, &cluster).await,
        _ => Vec::new(),
    };
    if let Some(last) = left.iter_mut().rfind(|it| !it.title.is_empty()) {
        let name = &cluster.context.name;
        last.title += &format!(", on the cluster of context {name:?}");
    }
    Ok(left)
}

/// Whether it is of another machine or user: the state directory is shared with it, or was copied from it. Releases without
/// identities wrote other holders.
fn is_foreign(cx: &Context<Gateway>, entry: &Entry) -> Result<bool, StageError> {
    let is_identity = |it: &str| it.len() == 32 && it.chars().all(|c| c.is_ascii_hexdigit());
    let holder = entry.data["holder"].as_str().filter(|it| is_identity(it));
    let run_dir = entry.data["run_dir"].as_str();
    Ok(match (holder, run_dir) {
        (Some(holder), _) => holder != cx.identity()?.as_str(),
        (None, Some(run_dir)) => run_dir != cx.run_dir_identity()?.as_str(),
        (None, None) => false,
    })
}

/// Whether an entry of ours may be about this cluster, so that its session can be resumed here. The same cluster can have
/// another kubeconfig; the uid of a Lease is that of no other.
pub(crate) fn may_be_here(
    cx: &Context<Gateway>,
    entry: &Entry,
    here: &ClusterRef,
) -> Result<bool, StageError> {
    let has_place = is_here(entry, here) || entry.data["uid"].is_string();
    Ok(has_place && !is_foreign(cx, entry)?)
}

/// Whether an entry names this very cluster.
pub(crate) fn is_here(entry: &Entry, here: &ClusterRef) -> bool {
    ClusterRef::from_entry(entry).is_some_and(|it| it == *here)
}

/// The holder of it may be alive: it stays until its Lease has expired.
async fn foreign<'a>(
    cx: &'a Context<Gateway>,
    cluster: &Cluster,
    entry: &Entry,
) -> Result<Option<Leftover<'a>>, StageError> {
    let session = GatewayLease::from_entry(entry).map(|it| it.lease_lock());
    let Some(lock) = session.or_else(|| task_namespace::lock_of(entry)) else {
        // What is installed goes with the last of all sessions.
        return Ok(None);
    };
    let LeaseState::Ours(held) = lock.get(cluster).await? else {
        return Ok(None);
    };
    if lease_expiry::seems_expired(&held, &cx.env) {
        return Ok(None);
    }
    cx.warn(format!(
        "the Lease {}/{} is that of another machine or user with these files: it stays until it has expired",
        lock.namespace, lock.name
    ));
    Ok(Some(Leftover::new("", async move {
        lease_expiry::observe(vec![held], &cx.env);
        Ok(Removal::Away {
            seconds: AWAY,
            is_reported: true,
        })
    })))
}

/// Seconds after which the things on a cluster are forgotten whose context is gone; their Leases have expired by then.
const AWAY: u64 = 7 * 24 * 3600;

/// The kubeconfig has no such context. A file that is replaced, or a disk that is not mounted, comes back.
fn away<'a>(cx: &Context<Gateway>, entry: &Entry, reference: &ClusterRef) -> Leftover<'a> {
    let is_reported = entry.what != gc::OTHERS;
    if is_reported {
        cx.warn(format!(
            "the kubeconfig has no context {:?} at the moment: what is left on its cluster is removed by the next cleanup that finds it",
            reference.context
        ));
    }
    Leftover::new("", async move {
        Ok(Removal::Away {
            seconds: AWAY,
            is_reported,
        })
    })
}

/// An orderly stop keeps what running tasks depend on; `cleanup --keep` does the same once after a kill.
async fn parked<'a>(
    cx: &Context<Gateway>,
    cluster: &Cluster,
    entry: &Entry,
    lease: &GatewayLease,
) -> Result<Option<Leftover<'a>>, StageError> {
    if !cx.keeps() || entry.parked.is_some() || lease.keep == 0 {
        return Ok(None);
    }
    let mut lock = lease.lease_lock();
    let LeaseState::Ours(held) = lock.get(cluster).await? else {
        return Ok(None);
    };
    let tasks = tasks::count_of(cluster, lease).await;
    // The line says until when, so the Lease lasts as long.
    (lock.duration, lock.user) = (lease.keep.max(lease.duration), user(cx));
    let parked = lease.parked(tasks);
    Ok(parked.map(|parked| renew_and_park(cluster, lock, held, parked)))
}

/// Whether the session stays for its tasks.
pub(crate) async fn stays(
    cx: &Context<Gateway>,
    cluster: &Cluster,
    entry: &Entry,
    lease: &GatewayLease,
) -> Result<bool, StageError> {
    let waits = |parked: &Parked| !parked.clone().is_over();
    let is_parked = cx.keeps() && entry.parked.as_ref().is_some_and(waits);
    Ok(match is_parked {
        true => is_needed(cx, entry).await,
        false => parked(cx, cluster, entry, lease).await?.is_some(),
    })
}

/// How long a look at the tasks of a parked session may take.
const LOOK_TIMEOUT: Duration = Duration::from_secs(5);

/// Whether tasks run for which an entry is parked, or that is unknown.
pub(crate) async fn is_needed(cx: &Context<Gateway>, entry: &Entry) -> bool {
    let counts = async {
        let reference = ClusterRef::from_entry(entry)?;
        let cluster = Cluster::from_ledger(&reference, &cx.env).await.ok()??;
        match GatewayLease::from_entry(entry) {
            Some(lease) => Some(tasks::count_of(&cluster, &lease).await),
            None => Some(tasks::count(&cluster, &task_namespace::of(entry)?).await),
        }
    };
    let is_ours = is_foreign(cx, entry).is_ok_and(|it| !it);
    let known = tokio::time::timeout(LOOK_TIMEOUT, counts).await;
    !is_ours || known != Ok(Some(Tasks::None))
}

/// A Lease that stays for tasks is renewed once, so that it lasts as long as its entry is parked.
pub(crate) fn renew_and_park<'a>(
    cluster: &Cluster,
    lock: LeaseLock,
    held: Lease,
    parked: Parked,
) -> Leftover<'a> {
    let cluster = cluster.clone();
    Leftover::new("", async move {
        Ok(match lock.replace(&cluster, &held).await? {
            LeaseState::Ours(_) => Removal::Parked(parked),
            _ => Removal::Gone,
        })
    })
}

/// What a session left, its Lease last: until that is gone, no other session uses the rest.
pub(crate) async fn session_leftovers(
    cluster: &Cluster,
    lease: &GatewayLease,
) -> Result<Vec<Leftover<'static>>, StageError> {
    let held = match lease.lease_lock().get(cluster).await? {
        // The session that took over the Lease has the Gateway too.
        LeaseState::Theirs(_) => return Ok(Vec::new()),
        LeaseState::Ours(held) => Some(held),
        LeaseState::Missing => None,
    };
    let mut left = Vec::new();
    if lease.made {
        left.extend(gateway_leftovers(cluster, lease, held.as_ref()).await?);
    }
    if held.is_some() || !left.is_empty() {
        let (cluster, mut lease_lock) = (cluster.clone(), lease.lease_lock());
        // Without one, a new one is made to show the deletion of the Gateway.
        lease_lock.uid = lease_lock.uid.filter(|_| held.is_some());
        let title = format!("the Lease on Gateway {}", lease.title());
        let title = if held.is_some() { title } else { String::new() };
        left.push(Leftover::new(title, async move {
            lease_lock.delete(&cluster, held).await?;
            Ok(true)
        }));
    }
    Ok(left)
}

/// A Gateway of our own, and what its controller made for it.
async fn gateway_leftovers(
    cluster: &Cluster,
    lease: &GatewayLease,
    held: Option<&Lease>,
) -> Result<Vec<Leftover<'static>>, StageError> {
    let gateway = objects::gateway(cluster, &lease.namespace, &lease.gateway).await?;
    let mut left = Vec::new();
    if let (Some(_), Some(held)) = (&gateway, held) {
        let (cluster, lease, held) = (cluster.clone(), lease.clone(), held.clone());
        let title = format!("Gateway {}", lease.title());
        left.push(Leftover::new(title, async move {
            dedicated::delete(&cluster, &lease, &held).await
        }));
    }
    let children = controller_objects::titles(cluster, lease).await?;
    if gateway.is_some() || !children.is_empty() {
        let (cluster, lease) = (cluster.clone(), lease.clone());
        let class = lease.class.clone().filter(|_| gateway.is_none());
        left.push(Leftover::new(children.join(", "), async move {
            if let Some(class) = class {
                controller_objects::show_deletion(&cluster, &lease, &class).await?;
            }
            controller_objects::until_removed(&cluster, &lease).await?;
            Ok(false)
        }));
    }
    let (cluster, lease) = (cluster.clone(), lease.clone());
    left.push(Leftover::new("", async move {
        controller_objects::remove_election(&cluster, &lease).await?;
        Ok(false)
    }));
    Ok(left)
}
