//! What dead sessions of others hold is given back by whoever comes by: their Leases have expired.

use std::time::Duration;

use cluster::{Cluster, ClusterRef, lease_expiry};
use k8s_openapi::api::coordination::v1::Lease;
use protocol::ledger::Entry;
use protocol::{Context, StageError, Undone};

use crate::Gateway;
use crate::dedicated;
use crate::lease::{self, GatewayLease};
use crate::provision;

/// The word in the ledger for a cluster on which others have sessions: `gc` looks there too.
pub(crate) const KIND: &str = "neighbours";

/// Deletes those of these Leases of others that have expired, and returns the others. Where there are such, that is noted in
/// the ledger.
pub(crate) async fn collect(
    cx: &Context<Gateway>,
    cluster: &Cluster,
    leases: Vec<Lease>,
) -> Result<Vec<Lease>, StageError> {
    let (removed, live) = expired(cx, cluster, leases).await?;
    for what in removed {
        cx.info(format!("removed {what}"));
    }
    if live.iter().any(|lease| lease::title(lease).is_some()) {
        note(cx, cluster)?;
    }
    Ok(live)
}

/// Writes down that others are on this cluster, once.
fn note(cx: &Context<Gateway>, cluster: &Cluster) -> Result<(), StageError> {
    let reference = cluster.context.reference();
    let is_known = |entry: &Entry| {
        entry.what == KIND && ClusterRef::from_entry(entry).as_ref() == Some(&reference)
    };
    if cx.ledger.entries().iter().any(is_known) {
        return Ok(());
    }
    let data = reference.entry_data(serde_json::Map::new())?;
    cx.ledger.intend(KIND, data).map(drop)
}

/// Deletes those of these Leases that have expired, with the Gateways that were made for them. Says what went, and returns
/// the Leases that are left.
async fn expired(
    cx: &Context<Gateway>,
    cluster: &Cluster,
    mut leases: Vec<Lease>,
) -> Result<(Vec<String>, Vec<Lease>), StageError> {
    lease_expiry::note(&leases, &cx.env);
    let dead = lease_expiry::expired(&leases, &cx.env);
    let dead: Vec<Lease> = dead.into_iter().cloned().collect();
    let mut removed = Vec::new();
    for lease in &dead {
        let Some(session) = GatewayLease::from_lease(lease) else {
            continue;
        };
        if !cluster::lease::delete(cluster, lease, false).await? {
            // It lives after all.
            continue;
        }
        let what = if session.made {
            dedicated::delete(cluster, &session).await?;
            "Gateway"
        } else {
            "the Lease on Gateway"
        };
        let (title, holder) = (session.title(), &session.holder);
        removed.push(format!("{what} {title} of dead session {holder:?}"));
    }
    leases.retain(|lease| !dead.contains(lease));
    Ok((removed, leases))
}

/// Looks after one cluster, for `gc`.
pub(crate) async fn undo(cx: &Context<Gateway>, cluster: &Cluster) -> Result<Undone, StageError> {
    match look_after(cx, cluster).await {
        Ok((removed, _)) if !removed.is_empty() => Ok(Undone::Partly(removed.join(", "))),
        Ok((_, true)) => Ok(Undone::Later),
        Ok(_) => Ok(Undone::Nothing),
        Err(error) => Ok(later(cx, &error)),
    }
}

/// What others left is not worth a failure of ours.
pub(crate) fn later(cx: &Context<Gateway>, error: &StageError) -> Undone {
    cx.debug(format!("what others left could not be looked at: {error}"));
    Undone::Later
}

/// What was removed, and whether others are there still.
async fn look_after(
    cx: &Context<Gateway>,
    cluster: &Cluster,
) -> Result<(Vec<String>, bool), StageError> {
    let mut leases = lease::list(cluster, None).await?;
    leases.retain(|lease| lease::title(lease).is_some());
    let (mut removed, left) = expired(cx, cluster, leases).await?;
    if !removed.is_empty() {
        let holder = lease::holder(cx);
        if let Undone::Removed(what) = provision::last_one_out(cx, cluster, &holder).await? {
            removed.push(what);
        }
    }
    Ok((removed, !left.is_empty()))
}

/// The same again and again while we are there.
pub(crate) async fn run_periodically(
    cx: &Context<Gateway>,
    cluster: &Cluster,
    period: Duration,
    ours: &str,
) -> ! {
    loop {
        tokio::time::sleep(period).await;
        let mut leases = lease::list(cluster, None).await.unwrap_or_default();
        leases.retain(|lease| lease::title(lease).is_some_and(|title| title != ours));
        match expired(cx, cluster, leases).await {
            Ok((removed, _)) => removed
                .iter()
                .for_each(|what| cx.info(format!("removed {what}"))),
            Err(error) => cx.debug(format!("what others left could not be looked at: {error}")),
        }
    }
}
