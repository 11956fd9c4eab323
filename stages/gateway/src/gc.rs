//! Collects what dead sessions of other users left: any session removes it once their Leases have expired.

use std::time::Duration;

use cluster::lease::{is_newer, user};
use cluster::{Cluster, lease_expiry};
use k8s_openapi::api::coordination::v1::Lease;
use protocol::{Context, Leftover, Removal, StageError};

use crate::Gateway;
use crate::dedicated;
use crate::lease::{self, GatewayLease};
use crate::provision;

/// The ledger's kind of entry for a cluster with sessions of others: `gc` collects there too.
pub(crate) const OTHERS: &str = "neighbours";

/// Collects the expired ones of these Leases of other sessions, and returns the live ones. If there are any, the ledger
/// records the cluster.
pub(crate) async fn collect(
    cx: &Context<Gateway>,
    cluster: &Cluster,
    leases: Vec<Lease>,
) -> Result<Vec<Lease>, StageError> {
    let (dead, live) = lease_expiry::observe(leases, &cx.env);
    remove(cx, cluster, dead).await;
    if live.iter().any(|lease| lease::title(lease).is_some()) {
        record_others(cx, cluster)?;
    }
    Ok(live)
}

/// Records once that the cluster has sessions of others.
fn record_others(cx: &Context<Gateway>, cluster: &Cluster) -> Result<(), StageError> {
    let reference = cluster.context.reference();
    if reference.entry(&cx.ledger, OTHERS).is_some() {
        return Ok(());
    }
    let data = reference.entry_data(serde_json::Map::new())?;
    cx.ledger.intend(OTHERS, data).map(drop)
}

async fn remove(cx: &Context<Gateway>, cluster: &Cluster, dead: Vec<Lease>) {
    for leftover in dead.into_iter().filter_map(|it| leftover(cx, cluster, it)) {
        let title = leftover.title.clone();
        if let Ok(Removal::Removed) = leftover.remove().await {
            cx.info(format!("removed {title}"));
        }
    }
}

/// What the session of an expired Lease left. A Gateway goes only if it names this very Lease as its owner: anyone may make
/// a Lease with a Gateway's name.
fn leftover<'a>(cx: &'a Context<Gateway>, cluster: &Cluster, lease: Lease) -> Option<Leftover<'a>> {
    let session = GatewayLease::from_lease(&lease).filter(|_| !is_newer(&lease))?;
    let what = match session.made {
        true => "Gateway",
        false => "the Lease on Gateway",
    };
    let (gateway, user) = (session.title(), user(&lease));
    let title = format!("{what} {gateway} of dead session {user:?}");
    let cluster = cluster.clone();
    let leftover = Leftover::new(title, async move {
        // If the Lease has changed, its session is alive.
        let deleted = cluster::lease::delete(&cluster, &lease).await?;
        if deleted && session.made {
            dedicated::delete(&cluster, &session, &lease).await?;
        }
        Ok(deleted)
    });
    Some(ignoring_errors(cx, leftover))
}

/// What other sessions left on a cluster. Live ones defer the entry.
pub(crate) async fn leftovers<'a>(
    cx: &'a Context<Gateway>,
    cluster: &Cluster,
) -> Vec<Leftover<'a>> {
    let listed = async {
        let mut leases = lease::list(cluster, None).await?;
        leases.retain(|lease| lease::title(lease).is_some());
        let (dead, live) = lease_expiry::preview(leases, &cx.env);
        let titles: Vec<String> = dead.iter().filter_map(lease::title).collect();
        let mut left = Vec::new();
        if !live.is_empty() {
            left.push(Leftover::new("", async move {
                lease_expiry::observe(live, &cx.env);
                Ok(Removal::Deferred)
            }));
        }
        if !dead.is_empty() {
            left.extend(dead.into_iter().filter_map(|it| leftover(cx, cluster, it)));
            let holder = cx.identity()?.as_str().to_owned();
            let controller = provision::leftover(cx, cluster, holder, &titles).await?;
            left.extend(controller.map(|it| ignoring_errors(cx, it)));
        }
        Ok(left)
    };
    listed
        .await
        .unwrap_or_else(|error: StageError| vec![deferred(cx, &error)])
}

/// A failure to remove what others left is not our failure.
fn ignoring_errors<'a>(cx: &'a Context<Gateway>, leftover: Leftover<'a>) -> Leftover<'a> {
    Leftover::new(leftover.title.clone(), async move {
        Ok(leftover.remove().await.unwrap_or_else(|error| {
            cx.debug(format!("cannot remove what other sessions left: {error}"));
            Removal::Deferred
        }))
    })
}

pub(crate) fn deferred<'a>(cx: &Context<Gateway>, error: &StageError) -> Leftover<'a> {
    cx.debug(format!("cannot check what other sessions left: {error}"));
    Leftover::new("", async { Ok(Removal::Deferred) })
}

/// Collects periodically while the stage runs.
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
        let (dead, _) = lease_expiry::observe(leases, &cx.env);
        remove(cx, cluster, dead).await;
    }
}
