//! What dead sessions of others hold is given back by whoever comes by: their Leases have expired.

use cluster::client::Cluster;
use cluster::observed;
use cluster::reach::{self, Way};
use k8s_openapi::api::coordination::v1::Lease;
use protocol::ledger::Entry;
use protocol::{Context, Env, StageError, Undone};

use crate::lease;
use crate::own;
use crate::provision;
use crate::stage::Gateway;
use crate::take::Place;

/// The word in the ledger for a cluster on which others have sessions: `gc` looks there too.
pub(crate) const KIND: &str = "neighbours";

/// Writes down that others are on this cluster, once.
pub(crate) fn note(cx: &Context<Gateway>, place: &Place) -> Result<(), StageError> {
    let way = place.way();
    let known = |entry: &Entry| entry.what == KIND && Way::of(entry).as_ref() == Some(&way);
    if cx.ledger.entries().iter().any(known) {
        return Ok(());
    }
    cx.ledger.intend(KIND, way.data()?).map(drop)
}

/// Deletes those of these Leases that have expired, with the Gateways that were made for them. Says what went, and returns
/// the Leases that are left.
pub(crate) async fn expired(
    cluster: &Cluster,
    leases: Vec<Lease>,
    env: &Env,
) -> Result<(Vec<String>, Vec<Lease>), StageError> {
    let dead: Vec<String> = observed::expired(&leases, env)
        .into_iter()
        .filter_map(lease::title)
        .collect();
    let is_dead = |lease: &Lease| lease::title(lease).is_some_and(|title| dead.contains(&title));
    let mut removed = Vec::new();
    for lease in leases.iter().filter(|lease| is_dead(lease)) {
        let title = lease::title(lease).unwrap_or_default();
        if !lease::delete(cluster, lease, false).await? {
            // It lives after all.
            continue;
        }
        let made = lease::made(lease);
        if let (true, Some(claim)) = (made, lease::claim(lease)) {
            own::delete(cluster, &claim).await?;
        }
        let what = if made {
            "Gateway"
        } else {
            "the Lease on Gateway"
        };
        removed.push(format!(
            "{what} {title} of dead session {:?}",
            lease::holder(lease)
        ));
    }
    let left = leases.into_iter().filter(|lease| !is_dead(lease)).collect();
    Ok((removed, left))
}

/// Looks after one cluster, for `gc`.
pub(crate) async fn undo(cx: &Context<Gateway>, entry: &Entry) -> Result<Undone, StageError> {
    let Some(way) = Way::of(entry) else {
        return Ok(Undone::Nothing);
    };
    let cluster = match reach::cluster(&way, &cx.env).await {
        Ok(Some(cluster)) => cluster,
        Ok(None) => return Ok(Undone::Nothing),
        Err(error) => return Ok(later(cx, &error)),
    };
    match look_after(cx, &cluster).await {
        Ok((removed, _)) if !removed.is_empty() => Ok(Undone::Partly(removed.join(", "))),
        Ok((_, true)) => Ok(Undone::Later),
        Ok(_) => Ok(Undone::Nothing),
        Err(error) => Ok(later(cx, &error)),
    }
}

/// What others left is not worth a failure of ours.
fn later(cx: &Context<Gateway>, error: &StageError) -> Undone {
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
    let (mut removed, left) = expired(cluster, leases, &cx.env).await?;
    if !removed.is_empty() {
        let holder = crate::claim::holder(cx);
        if let Undone::Removed(what) = provision::last_one_out(cx, cluster, &holder).await? {
            removed.push(what);
        }
    }
    Ok((removed, !left.is_empty()))
}

/// The same again and again while we are there.
pub(crate) async fn from_time_to_time(
    cx: &Context<Gateway>,
    cluster: &Cluster,
    period: std::time::Duration,
    ours: &str,
) -> ! {
    loop {
        tokio::time::sleep(period).await;
        let all = lease::list(cluster, None).await.unwrap_or_default();
        let is_other = |lease: &Lease| lease::title(lease).is_some_and(|title| title != ours);
        let others: Vec<Lease> = all.into_iter().filter(is_other).collect();
        match expired(cluster, others, &cx.env).await {
            Ok((removed, _)) => removed
                .iter()
                .for_each(|what| cx.info(format!("removed {what}"))),
            Err(error) => cx.debug(format!("what others left could not be looked at: {error}")),
        }
    }
}
