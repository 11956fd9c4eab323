//! What dead runs left, undone, and looked at.

use cluster::lease::Outcome;
use cluster::{Cluster, ClusterRef, lease_expiry};
use protocol::ledger::Entry;
use protocol::{Context, StageError, Undone};

use crate::Gateway;
use crate::lease::{self, GatewayLease, SESSION};
use crate::objects::{GATEWAYS, gateways};
use crate::{children, dedicated, gc, kubeconfig_file, provision};

pub(crate) async fn undo(cx: &Context<Gateway>, entry: &Entry) -> Result<Undone, StageError> {
    if entry.what == kubeconfig_file::KIND {
        return kubeconfig_file::undo(&entry.data);
    }
    let Some(reference) = ClusterRef::from_entry(entry) else {
        return Ok(Undone::Nothing);
    };
    let cluster = match Cluster::from_ledger(&reference, &cx.env).await {
        Ok(Some(cluster)) => cluster,
        Ok(None) => return Ok(Undone::Nothing),
        Err(error) if entry.what == gc::KIND => return Ok(gc::later(cx, &error)),
        Err(error) => return Err(error),
    };
    match entry.what.as_str() {
        SESSION => match GatewayLease::from_entry(entry) {
            Some(lease) => session(&cluster, &lease).await,
            None => Ok(Undone::Nothing),
        },
        provision::KIND => match entry.data["holder"].as_str() {
            Some(holder) => provision::last_one_out(cx, &cluster, holder).await,
            None => Ok(Undone::Nothing),
        },
        gc::KIND => gc::undo(cx, &cluster).await,
        _ => Ok(Undone::Nothing),
    }
}

pub(crate) async fn session(cluster: &Cluster, lease: &GatewayLease) -> Result<Undone, StageError> {
    let held = match lease.claim().get(cluster).await? {
        // Whoever has taken it over has the Gateway too.
        Outcome::Theirs(_) => return Ok(Undone::Nothing),
        Outcome::Ours(held) => Some(held),
        Outcome::Gone => None,
    };
    let mut removed = Vec::new();
    if lease.made {
        if dedicated::delete(cluster, lease).await? {
            removed.push(format!("Gateway {}", lease.title()));
        }
        for route in dedicated::routes(cluster, lease).await? {
            removed.push(route.title());
            route.delete(cluster).await?;
        }
        removed.extend(children::remove(cluster, lease).await?);
    }
    if let Some(held) = held {
        lease.claim().delete(cluster, Some(*held), false).await?;
        removed.push(format!("the Lease on Gateway {}", lease.title()));
    }
    Ok(if removed.is_empty() {
        Undone::Nothing
    } else {
        Undone::Removed(removed.join(", "))
    })
}

pub(crate) async fn foresee(
    cx: &Context<Gateway>,
    entry: &Entry,
) -> Result<Option<String>, StageError> {
    if entry.what == kubeconfig_file::KIND {
        return Ok(kubeconfig_file::left(&entry.data));
    }
    let Some(reference) = ClusterRef::from_entry(entry) else {
        return Ok(None);
    };
    let Some(cluster) = Cluster::from_ledger(&reference, &cx.env).await? else {
        return Ok(None);
    };
    let mut left = match entry.what.as_str() {
        SESSION => match GatewayLease::from_entry(entry) {
            Some(lease) => of_session(&cluster, &lease).await?,
            None => Vec::new(),
        },
        provision::KIND => {
            let entries = cx.ledger.entries();
            let ours = entries.iter().filter_map(GatewayLease::from_entry);
            let ours: Vec<String> = ours.map(|lease| lease.title()).collect();
            provision::left(&cluster, &ours).await?
        }
        gc::KIND => of_others(cx, &cluster).await?,
        _ => Vec::new(),
    };
    if let Some(last) = left.last_mut() {
        *last += &format!(", on the cluster of context {:?}", cluster.context.name);
    }
    Ok((!left.is_empty()).then(|| left.join(", ")))
}

async fn of_session(cluster: &Cluster, lease: &GatewayLease) -> Result<Vec<String>, StageError> {
    let held = match lease.claim().get(cluster).await? {
        // Whoever has taken it over has the Gateway too.
        Outcome::Theirs(_) => return Ok(Vec::new()),
        Outcome::Ours(_) => Some(format!("the Lease on Gateway {}", lease.title())),
        Outcome::Gone => None,
    };
    let mut left = Vec::new();
    if lease.made {
        let gateways = gateways(cluster, Some(&lease.namespace));
        let gateway = gateways
            .get_opt(&lease.gateway)
            .await
            .map_err(|error| cluster.failed("get", GATEWAYS, Some(&lease.namespace), &error))?;
        left.extend(gateway.map(|_| format!("Gateway {}", lease.title())));
        let routes = dedicated::routes(cluster, lease).await?;
        left.extend(routes.iter().map(dedicated::Route::title));
        left.extend(children::titles(cluster, lease).await?);
    }
    left.extend(held);
    Ok(left)
}

/// By what was seen of their Leases before.
async fn of_others(cx: &Context<Gateway>, cluster: &Cluster) -> Result<Vec<String>, StageError> {
    let leases = lease::list(cluster, None).await?;
    let expired = lease_expiry::expired(&leases, &cx.env).into_iter();
    let left = expired.filter_map(GatewayLease::from_lease);
    Ok(left
        .map(|it| {
            format!(
                "what dead session {:?} holds of Gateway {}",
                it.holder,
                it.title()
            )
        })
        .collect())
}
