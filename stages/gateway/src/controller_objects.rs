//! The objects that a controller made for a Gateway of ours. The controller removes them after the Gateway is deleted.

use std::time::Duration;

use cluster::lease::{LEASES, LeaseState, holder};
use cluster::objects::{Discovery, ObjectRef};
use cluster::{Cluster, ours, status};
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use protocol::StageError;
use tokio::time::Instant;

use crate::codes;
use crate::config::Config;
use crate::dedicated;
use crate::lease::GatewayLease;
use crate::objects::{GATEWAY_NAME, GATEWAYS, gateway, gateways, is_seen, title};

/// The start of the name of every Gateway of our own.
const PREFIX: &str = "devcluster-";

/// Longer than Contour's pods renew their Lease.
const ELECTION_RENEWAL: Duration = Duration::from_secs(3);

/// How long the controller may take.
const CONTROLLER_TIMEOUT: Duration = Duration::from_secs(20);
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// Kinds that run or cost something. The controller removes the others with them.
const RUNNING: [(&str, &str); 3] = [
    ("v1", "Service"),
    ("apps/v1", "Deployment"),
    ("apps/v1", "DaemonSet"),
];

/// Their titles, for messages.
pub(crate) async fn titles(
    cluster: &Cluster,
    lease: &GatewayLease,
) -> Result<Vec<String>, StageError> {
    let all = list(&mut Discovery::new(cluster), Some(lease)).await?;
    Ok(all.into_iter().map(|it| it.title).collect())
}

/// Waits until the controller has removed them. They are its own, so they stay for a later `cleanup` if it does not run.
pub(crate) async fn until_removed(
    cluster: &Cluster,
    lease: &GatewayLease,
) -> Result<(), StageError> {
    let deadline = Instant::now() + CONTROLLER_TIMEOUT;
    let mut discovery = Discovery::new(cluster);
    loop {
        let children = list(&mut discovery, Some(lease)).await?;
        let Some(child) = children.first() else {
            return Ok(());
        };
        if Instant::now() > deadline {
            return Err(stays(lease, child));
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// Creates the deleted Gateway of a session again and deletes it: a controller that did not run at its deletion has not
/// noticed it.
pub(crate) async fn show_deletion(
    cluster: &Cluster,
    lease: &GatewayLease,
    class: &str,
) -> Result<(), StageError> {
    let new = GatewayLease {
        uid: None,
        ..lease.clone()
    };
    let lock = new.lease_lock();
    let LeaseState::Ours(owner) = lock.create(cluster).await? else {
        return Ok(());
    };
    let range = Config::default().port_range;
    dedicated::make(cluster, lease, &owner, class, range).await?;
    let deadline = Instant::now() + CONTROLLER_TIMEOUT;
    while Instant::now() < deadline {
        let now = gateway(cluster, &lease.namespace, &lease.gateway).await?;
        if now.as_ref().is_none_or(is_seen) {
            break;
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    dedicated::delete(cluster, lease, &owner).await.map(drop)
}

fn stays(lease: &GatewayLease, child: &Child) -> StageError {
    let message = format!(
        "Gateway {} is deleted, but its controller has not removed {}",
        lease.title(),
        child.title
    );
    StageError::new(codes::INFRASTRUCTURE_TIMEOUT, message).hint(
        "check that the controller of its GatewayClass runs, for example after a reboot of its node; then clean up again",
    )
}

/// Waits until no controller has objects of a Gateway of ours that is gone, in any namespace. Returns one that stays.
pub(crate) async fn until_all_removed(cluster: &Cluster) -> Result<Option<String>, StageError> {
    let deadline = Instant::now() + CONTROLLER_TIMEOUT;
    let mut discovery = Discovery::new(cluster);
    loop {
        let children = list(&mut discovery, None).await?;
        let gateways = gateways(cluster, None).list(&ListParams::default()).await;
        let gateways = match gateways {
            Ok(list) => list.items,
            Err(error) if status(&error) == 404 => Vec::new(),
            Err(error) => return Err(cluster.failed("list", GATEWAYS, None, &error)),
        };
        let is_there = |child: &Child| gateways.iter().any(|it| title(it) == child.gateway);
        match children.into_iter().find(|it| !is_there(it)) {
            Some(child) if Instant::now() > deadline => return Ok(Some(child.title)),
            Some(_) => tokio::time::sleep(POLL_INTERVAL).await,
            None => return Ok(None),
        }
    }
}

/// Removes the Lease by which Contour's pods for this Gateway elected a leader; Contour leaves it. Its pods are gone, and
/// its name has that of the Gateway in it.
pub(crate) async fn remove_election(
    cluster: &Cluster,
    lease: &GatewayLease,
) -> Result<(), StageError> {
    let leases: Api<Lease> = Api::namespaced(cluster.client.clone(), &lease.namespace);
    let failed = |verb| move |error| cluster.failed(verb, LEASES, Some(&lease.namespace), &error);
    let name = format!("leader-elect-{}", lease.gateway);
    let pods = format!("contour-{}-", lease.gateway);
    let is_election = |it: &Lease| holder(it).is_empty() || holder(it).starts_with(&pods);
    let mut seen: Option<Lease> = None;
    loop {
        let now = leases.get_opt(&name).await.map_err(failed("get"))?;
        let Some(now) = now.filter(is_election) else {
            return Ok(());
        };
        // A pod that still ends renews it.
        if seen.is_some_and(|seen| seen.metadata.resource_version == now.metadata.resource_version)
        {
            let deleted = ours::delete_as_read(&leases, &now).await;
            return deleted.map(drop).map_err(failed("delete"));
        }
        seen = Some(now);
        tokio::time::sleep(ELECTION_RENEWAL).await;
    }
}

struct Child {
    title: String,
    /// The `namespace/name` of its Gateway.
    gateway: String,
}

/// Controllers label their objects with the Gateway's name. Without a Lease: those of all Gateways that are named as ours,
/// and that are gone.
async fn list(
    discovery: &mut Discovery<'_>,
    lease: Option<&GatewayLease>,
) -> Result<Vec<Child>, StageError> {
    let label = match lease {
        Some(lease) => format!("{GATEWAY_NAME}={}", lease.gateway),
        None => GATEWAY_NAME.to_owned(),
    };
    let labelled = ListParams::default().labels(&label);
    let mut children = Vec::new();
    for (api_version, kind) in RUNNING {
        let namespace = lease.map(|it| it.namespace.as_str()).unwrap_or_default();
        let any = ObjectRef::from_kind(api_version, kind, namespace);
        let Some(kind) = discovery.kind(&any).await? else {
            continue;
        };
        let api = match lease {
            Some(_) => kind.api(&any),
            None => kind.api_all(),
        };
        let listed = match api.list_metadata(&labelled).await {
            Ok(list) => list.items,
            // The user may not see these.
            Err(error) if status(&error) == 403 => continue,
            Err(error) => return Err(kind.failed("list", &any, &error)),
        };
        children.extend(listed.into_iter().filter_map(|it| {
            let gateway = it.labels().get(GATEWAY_NAME)?.clone();
            if lease.is_none() && !gateway.starts_with(PREFIX) {
                return None;
            }
            let namespace = it.metadata.namespace.unwrap_or_default();
            let gateway = format!("{namespace}/{gateway}");
            let (namespace, name) = (Some(namespace), it.metadata.name.unwrap_or_default());
            let reference = ObjectRef {
                namespace,
                name,
                ..any.clone()
            };
            Some(Child {
                title: reference.title(),
                gateway,
            })
        }));
    }
    Ok(children)
}
