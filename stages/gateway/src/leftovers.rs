//! What dead runs left: one list, to print and to remove.

use cluster::lease::LeaseState;
use cluster::{Cluster, ClusterRef};
use protocol::ledger::Entry;
use protocol::{Context, Leftover, StageError};

use crate::Gateway;
use crate::lease::{GatewayLease, SESSION};
use crate::{controller_objects, dedicated, gc, kubeconfig_file, objects, provision};

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
        Ok(None) => return Ok(Vec::new()),
        Err(error) if entry.what == gc::OTHERS => {
            return Ok(vec![gc::deferred(cx, &error)]);
        }
        Err(error) => return Err(error),
    };
    let holder = entry.data["holder"].as_str();
    let mut left = match (entry.what.as_str(), holder) {
        (SESSION, _) => match GatewayLease::from_entry(entry) {
            Some(lease) => session_leftovers(&cluster, &lease).await?,
            None => Vec::new(),
        },
        (provision::KIND, Some(holder)) => {
            let left = provision::leftover(cx, &cluster, holder.to_owned(), &[]);
            Vec::from_iter(left.await?)
        }
        (gc::OTHERS, _) => gc::leftovers(cx, &cluster).await,
        _ => Vec::new(),
    };
    if let Some(last) = left.iter_mut().rfind(|it| !it.title.is_empty()) {
        let name = &cluster.context.name;
        last.title += &format!(", on the cluster of context {name:?}");
    }
    Ok(left)
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
        left.extend(gateway_leftovers(cluster, lease).await?);
    }
    if let Some(held) = held {
        let (cluster, lease_lock) = (cluster.clone(), lease.lease_lock());
        let title = format!("the Lease on Gateway {}", lease.title());
        left.push(Leftover::new(title, async move {
            lease_lock.delete(&cluster, Some(held), false).await?;
            Ok(true)
        }));
    }
    Ok(left)
}

/// A Gateway of our own, and what was made for it.
async fn gateway_leftovers(
    cluster: &Cluster,
    lease: &GatewayLease,
) -> Result<Vec<Leftover<'static>>, StageError> {
    let gateway = objects::gateway(cluster, &lease.namespace, &lease.gateway).await?;
    let mut left = Vec::new();
    if gateway.is_some() {
        let (cluster, lease) = (cluster.clone(), lease.clone());
        let title = format!("Gateway {}", lease.title());
        left.push(Leftover::new(title, async move {
            dedicated::delete(&cluster, &lease).await
        }));
    }
    for route in dedicated::routes(cluster, lease).await? {
        let cluster = cluster.clone();
        left.push(Leftover::new(route.title(), async move {
            route.delete(&cluster).await
        }));
    }
    let children = controller_objects::titles(cluster, lease).await?;
    if gateway.is_some() || !children.is_empty() {
        let (cluster, lease) = (cluster.clone(), lease.clone());
        left.push(Leftover::new(children.join(", "), async move {
            controller_objects::remove(&cluster, &lease).await
        }));
    }
    Ok(left)
}
