//! What an undoing would remove, looked at on the cluster and left as it is.

use cluster::client::Cluster;
use cluster::fault::{self, Attempt};
use cluster::observed;
use cluster::reach::{self, Way};
use protocol::ledger::Entry;
use protocol::{Context, StageError};

use crate::collect;
use crate::file;
use crate::lease::{self, Claim, Outcome};
use crate::objects;
use crate::own;
use crate::provision;
use crate::session::{self, Record};
use crate::stage::Gateway;
use crate::survey::GATEWAYS;

pub(crate) async fn foresee(
    cx: &Context<Gateway>,
    entry: &Entry,
) -> Result<Option<String>, StageError> {
    if entry.what == file::KIND {
        return Ok(file::left(&entry.data));
    }
    let Some(way) = Way::of(entry) else {
        return Ok(None);
    };
    let Some(cluster) = reach::cluster(&way, &cx.env).await? else {
        return Ok(None);
    };
    let mut left = match entry.what.as_str() {
        session::KIND => match Record::of(entry) {
            Some(record) => of_session(&cluster, &record.claim()).await?,
            None => Vec::new(),
        },
        provision::KIND => {
            let entries = cx.ledger.entries();
            let ours = entries.iter().filter_map(Record::of);
            let ours: Vec<String> = ours.map(|record| record.claim().title()).collect();
            provision::left(&cluster, &ours).await?
        }
        collect::KIND => of_others(cx, &cluster).await?,
        _ => Vec::new(),
    };
    if let Some(last) = left.last_mut() {
        *last += &format!(", on the cluster of context {:?}", way.context);
    }
    Ok((!left.is_empty()).then(|| left.join(", ")))
}

async fn of_session(cluster: &Cluster, claim: &Claim) -> Result<Vec<String>, StageError> {
    let lease = match lease::get(cluster, claim).await? {
        // Whoever has taken it over has the Gateway too.
        Outcome::Theirs(_) => return Ok(Vec::new()),
        Outcome::Ours(_) => Some(format!("the Lease on Gateway {}", claim.title())),
        Outcome::Gone => None,
    };
    let mut left = Vec::new();
    if claim.made {
        let gateways = objects::gateways(cluster, Some(&claim.namespace));
        let gateway = gateways.get_opt(&claim.gateway).await.map_err(|error| {
            let attempt = Attempt::new("get", GATEWAYS, Some(&claim.namespace));
            fault::of_request(&cluster.peer, &attempt, &error)
        })?;
        left.extend(gateway.map(|_| format!("Gateway {}", claim.title())));
        left.extend(own::left(cluster, claim).await?);
    }
    left.extend(lease);
    Ok(left)
}

/// By what was seen of their Leases before.
async fn of_others(cx: &Context<Gateway>, cluster: &Cluster) -> Result<Vec<String>, StageError> {
    let leases = lease::list(cluster, None).await?;
    let expired = observed::known_to_have_expired(&leases, &cx.env);
    let left = expired.into_iter().filter_map(|lease| {
        let title = lease::title(lease)?;
        let holder = lease::holder(lease);
        Some(format!(
            "what dead session {holder:?} holds of Gateway {title}"
        ))
    });
    Ok(left.collect())
}
