//! Whether tasks run: the pods of Determined's allocations in the namespace for tasks, and those that have ports on the
//! Gateway, in any namespace: workspaces can have namespaces of their own.

use std::collections::{BTreeMap, BTreeSet};

use cluster::Cluster;
use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::core::PartialObjectMeta;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, ResourceExt};
use tokio::sync::watch;

use crate::lease::GatewayLease;
use crate::objects;
use crate::usage::{ALLOCATION, live};

/// Pods that have not ended.
const RUNNING: &str = "status.phase!=Succeeded,status.phase!=Failed";

/// Longest duration of one watch, in seconds: a dead connection is noticed by then.
const LONGEST: u32 = 30;

/// What is known about the tasks of the master.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tasks {
    None,
    /// This many pods.
    Running(usize),
    /// The user may not list pods, or the API does not answer.
    Unknown,
}

impl Tasks {
    fn from_count(count: usize) -> Self {
        match count {
            0 => Self::None,
            count => Self::Running(count),
        }
    }

    /// How long a Lease lasts with them, in seconds: `keep`, unless it is known that there are none.
    pub(crate) fn duration(self, without: u32, keep: u32) -> u32 {
        match self {
            Self::None => without,
            Self::Running(_) | Self::Unknown => without.max(keep),
        }
    }

    /// For people.
    pub(crate) fn describe(self) -> String {
        match self {
            Self::None => "no tasks".to_owned(),
            Self::Running(1) => "the task that runs".to_owned(),
            Self::Running(count) => format!("the {count} tasks that run"),
            Self::Unknown => "tasks that may run".to_owned(),
        }
    }
}

/// The tasks in a namespace at this moment.
pub(crate) async fn count(cluster: &Cluster, namespace: &str) -> Tasks {
    match pods(cluster, namespace).await {
        Some(pods) => Tasks::from_count(pods.len()),
        None => Tasks::Unknown,
    }
}

/// The tasks of a session at this moment.
pub(crate) async fn count_of(cluster: &Cluster, lease: &GatewayLease) -> Tasks {
    let gateway = objects::gateway(cluster, &lease.namespace, &lease.gateway);
    let (inside, gateway) = tokio::join!(pods(cluster, &lease.task_namespace), gateway);
    let elsewhere = async {
        let (inside, gateway) = (inside.as_ref()?, gateway.ok()?);
        let mut ids = gateway
            .as_ref()
            .map(objects::allocations)
            .unwrap_or_default();
        ids.retain(|id| !inside.contains(id));
        live(cluster, &ids, ListParams::default().fields(RUNNING)).await
    };
    let known = inside.as_ref().map_or(0, Vec::len);
    match elsewhere.await {
        Some(elsewhere) => Tasks::from_count(known + elsewhere.len()),
        None if known > 0 => Tasks::Running(known),
        None => Tasks::Unknown,
    }
}

/// The allocation of each running pod; `None` if that is unknown.
async fn pods(cluster: &Cluster, namespace: &str) -> Option<Vec<String>> {
    let running = ListParams::default().labels(ALLOCATION).fields(RUNNING);
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), namespace);
    let list = pods.list_metadata(&running).await.ok()?;
    Some(list.items.iter().map(allocation).collect())
}

fn allocation(pod: &PartialObjectMeta<Pod>) -> String {
    pod.labels().get(ALLOCATION).cloned().unwrap_or_default()
}

/// Keeps `tasks` up to date. `ports` has the allocations with ports on the Gateway: a live master removes those of tasks that
/// have ended.
pub(crate) async fn follow(
    cluster: &Cluster,
    namespace: &str,
    mut ports: watch::Receiver<BTreeSet<String>>,
    tasks: &watch::Sender<Tasks>,
) -> std::convert::Infallible {
    let config = watcher::Config::default()
        .labels(ALLOCATION)
        .fields(RUNNING)
        .timeout(LONGEST);
    let pods: Api<PartialObjectMeta<Pod>> = Api::namespaced(cluster.client.clone(), namespace);
    let events = watcher::watcher(pods, config);
    let mut events = events.default_backoff().boxed();
    // The allocation of each pod by its name.
    let mut running = BTreeMap::new();
    let mut is_listed = false;
    let tell = |running: &BTreeMap<String, String>,
                is_listed,
                ports: &watch::Receiver<BTreeSet<String>>| {
        let inside: BTreeSet<&String> = running.values().collect();
        let ports = ports.borrow();
        let elsewhere = ports.iter().filter(|it| !inside.contains(it)).count();
        if is_listed {
            set(tasks, Tasks::from_count(running.len() + elsewhere));
        }
    };
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            Ok(()) = ports.changed() => {
                tell(&running, is_listed, &ports);
                continue;
            }
        };
        match event {
            Some(Ok(watcher::Event::Init)) => {
                running.clear();
                is_listed = false;
            }
            Some(Ok(watcher::Event::InitApply(pod))) => {
                running.insert(pod.name_any(), allocation(&pod));
            }
            Some(Ok(watcher::Event::Apply(pod))) => {
                running.insert(pod.name_any(), allocation(&pod));
                is_listed = true;
            }
            Some(Ok(watcher::Event::Delete(pod))) => {
                running.remove(&pod.name_any());
                is_listed = true;
            }
            Some(Ok(watcher::Event::InitDone)) => is_listed = true,
            Some(Err(_)) => {
                is_listed = false;
                set(tasks, Tasks::Unknown);
            }
            None => std::future::pending().await,
        }
        tell(&running, is_listed, &ports);
    }
}

/// Keeps the duration of a Lease up to date with the tasks.
pub(crate) async fn follow_durations(
    tasks: &mut watch::Receiver<Tasks>,
    durations: &watch::Sender<u32>,
    without: u32,
    keep: u32,
) -> std::convert::Infallible {
    loop {
        let now = *tasks.borrow_and_update();
        set(durations, now.duration(without, keep));
        if tasks.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

fn set<T: Copy + PartialEq>(sender: &watch::Sender<T>, now: T) {
    sender.send_if_modified(|before| std::mem::replace(before, now) != now);
}
