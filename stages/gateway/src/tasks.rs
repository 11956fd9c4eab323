//! Whether tasks run: the pods of Determined's allocations in the namespace for tasks.

use std::collections::BTreeSet;

use cluster::Cluster;
use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::core::PartialObjectMeta;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, ResourceExt};
use tokio::sync::watch;

use crate::usage::ALLOCATION;

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

/// The tasks at this moment.
pub(crate) async fn count(cluster: &Cluster, namespace: &str) -> Tasks {
    let running = ListParams::default().labels(ALLOCATION).fields(RUNNING);
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), namespace);
    match pods.list_metadata(&running).await {
        Ok(list) => Tasks::from_count(list.items.len()),
        Err(_) => Tasks::Unknown,
    }
}

/// Keeps `tasks` up to date.
pub(crate) async fn follow(
    cluster: &Cluster,
    namespace: &str,
    tasks: &watch::Sender<Tasks>,
) -> std::convert::Infallible {
    let config = watcher::Config::default()
        .labels(ALLOCATION)
        .fields(RUNNING)
        .timeout(LONGEST);
    let pods: Api<PartialObjectMeta<Pod>> = Api::namespaced(cluster.client.clone(), namespace);
    let events = watcher::watcher(pods, config);
    let mut events = events.default_backoff().boxed();
    let mut running = BTreeSet::new();
    let name = |pod: PartialObjectMeta<Pod>| pod.name_any();
    loop {
        let mut is_listed = true;
        match events.next().await {
            Some(Ok(watcher::Event::Init)) => {
                running.clear();
                is_listed = false;
            }
            Some(Ok(watcher::Event::InitApply(pod))) => {
                running.insert(name(pod));
                is_listed = false;
            }
            Some(Ok(watcher::Event::Apply(pod))) => drop(running.insert(name(pod))),
            Some(Ok(watcher::Event::Delete(pod))) => drop(running.remove(&name(pod))),
            Some(Ok(watcher::Event::InitDone)) => {}
            Some(Err(_)) => {
                is_listed = false;
                set(tasks, Tasks::Unknown);
            }
            None => std::future::pending().await,
        }
        if is_listed {
            set(tasks, Tasks::from_count(running.len()));
        }
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
