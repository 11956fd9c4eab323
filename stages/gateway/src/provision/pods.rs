//! Reports why the pods of a controller are not ready.

use cluster::Cluster;
use cluster::objects::ObjectRef;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus};
use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Pod, PodStatus};
use kube::Api;
use kube::api::ListParams;

/// A line for each Deployment that is not available and each of its pods that is not ready. Empty if all is well, or if
/// the user may not see them.
pub(crate) async fn problems(cluster: &Cluster, objects: &[ObjectRef]) -> Vec<String> {
    let mut lines = Vec::new();
    for reference in objects.iter().filter(|it| it.kind == "Deployment") {
        let namespace = reference.namespace.as_deref().unwrap_or_default();
        let api: Api<Deployment> = Api::namespaced(cluster.client.clone(), namespace);
        let Ok(Some(deployment)) = api.get_opt(&reference.name).await else {
            continue;
        };
        let status = deployment.status.clone().unwrap_or_default();
        if let Some(line) = deployment_problem(&status) {
            lines.push(format!("{}: {line}", reference.title()));
            lines.extend(pod_problems(cluster, namespace, &deployment).await);
        }
    }
    lines
}

/// `None` if it is available.
fn deployment_problem(status: &DeploymentStatus) -> Option<String> {
    let find = |kind: &str, value: &str| {
        let is = |text: &Option<String>, wanted: &str| text.as_deref() == Some(wanted);
        let mut conditions = status.conditions.iter().flatten();
        conditions.find(|it| is(&it.type_, kind) && is(&it.status, value))
    };
    if find("Available", "True").is_some() {
        return None;
    }
    let failed = find("ReplicaFailure", "True").or_else(|| find("Progressing", "False"));
    let (pods, ready) = (status.replicas, status.ready_replicas);
    let count = || {
        format!(
            "{} of its {} pods are ready",
            ready.unwrap_or(0),
            pods.unwrap_or(0)
        )
    };
    Some(
        failed
            .and_then(|it| it.message.clone())
            .unwrap_or_else(count),
    )
}

async fn pod_problems(cluster: &Cluster, namespace: &str, deployment: &Deployment) -> Vec<String> {
    let labels = deployment.spec.selector.match_labels.iter().flatten();
    let selector: Vec<String> = labels
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    let api: Api<Pod> = Api::namespaced(cluster.client.clone(), namespace);
    let labelled = ListParams::default().labels(&selector.join(","));
    let Ok(pods) = api.list(&labelled).await else {
        return Vec::new();
    };
    let text = |pod: Pod| {
        let name = pod.metadata.name.unwrap_or_default();
        let text = pod_problem(&pod.status?)?;
        Some(format!("Pod {namespace}/{name}: {text}"))
    };
    pods.items.into_iter().filter_map(text).collect()
}

/// `None` if it is ready.
fn pod_problem(status: &PodStatus) -> Option<String> {
    let is = |kind: &str, value: &str| {
        let mut conditions = status.conditions.iter().flatten();
        conditions.find(|it| it.type_ == kind && it.status == value)
    };
    if is("Ready", "True").is_some() {
        return None;
    }
    let containers = status.init_container_statuses.iter().flatten();
    let mut containers = containers.chain(status.container_statuses.iter().flatten());
    let text = containers.find_map(container_problem).or_else(|| {
        let unscheduled = is("PodScheduled", "False")?;
        Some(join(&unscheduled.reason, &unscheduled.message))
    });
    let unknown = || "unknown phase".to_owned();
    text.or_else(|| status.phase.clone())
        .or_else(|| Some(unknown()))
}

fn container_problem(container: &ContainerStatus) -> Option<String> {
    let state = container.state.as_ref()?;
    let ended = |state: &ContainerState| {
        let it = state.terminated.as_ref()?;
        let text = join(&it.reason, &it.message);
        Some(format!("it ended with exit code {}: {text}", it.exit_code))
    };
    let waits = state
        .waiting
        .as_ref()
        .map(|it| join(&it.reason, &it.message));
    let ended = ended(state).or_else(|| ended(container.last_state.as_ref()?));
    let text: Vec<String> = waits.into_iter().chain(ended).collect();
    (!text.is_empty()).then(|| format!("container {}: {}", container.name, text.join("; ")))
}

fn join(reason: &Option<String>, message: &Option<String>) -> String {
    let text = [reason, message].map(|it| it.as_deref().unwrap_or_default().trim());
    let text: Vec<&str> = text.into_iter().filter(|it| !it.is_empty()).collect();
    text.join(": ")
}
