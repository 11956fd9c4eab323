//! Waits until an installed controller accepts its class.

use std::time::Duration;

use cluster::objects::ObjectRef;
use cluster::{Cluster, status};
use futures::StreamExt;
use kube::runtime::{WatchStreamExt, watcher};
use protocol::{Context, StageError};
use tokio::time::Instant;

use super::lock::Installed;
use super::pods;
use crate::Gateway;
use crate::codes;
use crate::objects::{self, CLASSES, is_accepted};

/// Time between two looks at the controller's pods.
const POLL_INTERVAL: Duration = Duration::from_secs(3);

pub(super) async fn has_accepted(cluster: &Cluster, class: &str) -> Result<bool, StageError> {
    match objects::classes(cluster).get_opt(class).await {
        Ok(class) => Ok(class.as_ref().is_some_and(is_accepted)),
        // The API does not serve classes yet.
        Err(error) if status(&error) == 404 => Ok(false),
        Err(error) => Err(cluster.failed("get", CLASSES, None, &error)),
    }
}

/// Waits until the controller has accepted its class, and reports what its pods say meanwhile.
pub(super) async fn until_accepted(
    cx: &Context<Gateway>,
    cluster: &Cluster,
    installed: &Installed,
    timeout: Duration,
) -> Result<(), StageError> {
    let deadline = Instant::now() + timeout;
    let class = &installed.class;
    let line = format!("waiting for the controller to accept GatewayClass {class}");
    cx.progress("provision", line);
    let events = watcher::watch_object(objects::classes(cluster), class);
    let mut events = events.default_backoff().boxed();
    let (mut reports, mut reason): (Vec<String>, Option<String>) = (Vec::new(), None);
    let mut look_at = Instant::now() + POLL_INTERVAL;
    loop {
        match tokio::time::timeout_at(look_at.min(deadline), events.next()).await {
            Ok(Some(Ok(Some(seen)))) if is_accepted(&seen) => return Ok(()),
            Ok(Some(Ok(Some(seen)))) => {
                let status = seen.status.unwrap_or_default();
                reason = objects::why_false(&status.conditions, "Accepted");
            }
            // The watch recovers by itself.
            Ok(_) => {}
            Err(_) if Instant::now() >= deadline => {
                reports.extend(reason.map(|reason| format!("GatewayClass {class}: {reason}")));
                return Err(not_ready(installed, timeout, reports));
            }
            Err(_) => {
                let now = pods::problems(cluster, &installed.objects).await;
                let new = now.iter().filter(|line| !reports.contains(line));
                new.for_each(|line| cx.progress("provision", line));
                reports = now;
                look_at = Instant::now() + POLL_INTERVAL;
            }
        }
    }
}

fn not_ready(installed: &Installed, timeout: Duration, reports: Vec<String>) -> StageError {
    let message = format!(
        "the controller was installed, but did not accept GatewayClass {} within {} s",
        installed.class,
        timeout.as_secs()
    );
    let mut error = StageError::new(codes::INFRASTRUCTURE_TIMEOUT, message);
    error.caused_by = reports;
    let mut objects = installed.objects.iter();
    error.hint(match objects.find(|it| it.kind == "Deployment") {
        Some(ObjectRef {
            namespace, name, ..
        }) => {
            let namespace = namespace.as_deref().unwrap_or_default();
            format!("see `kubectl -n {namespace} logs deployment/{name}`, if its pods run")
        }
        None => "the manifests have no Deployment that runs the controller".to_owned(),
    })
}
