//! What the pods of a controller say: why it does not come up.

use cluster::Cluster;
use cluster::objects::Reference;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::Api;
use kube::api::ListParams;

/// A line for each Deployment that is not available, and for each of its pods that is not ready. Empty: all is well, or
/// nothing may be seen.
pub(crate) async fn complaints(cluster: &Cluster, objects: &[Reference]) -> Vec<String> {
    let mut lines = Vec::new();
    let deployments = objects.iter().filter(|it| it.kind == "Deployment");
    for reference in deployments {
        let namespace = reference.namespace.as_deref().unwrap_or_default();
        let api: Api<Deployment> = Api::namespaced(cluster.client.clone(), namespace);
        let Ok(Some(deployment)) = api.get_opt(&reference.name).await else {
            continue;
        };
        if let Some(line) = of_deployment(&deployment) {
            lines.push(format!("{}: {line}", reference.title()));
            lines.extend(of_pods(cluster, namespace, &deployment).await);
        }
    }
    lines
}

/// `None` when it is available.
fn of_deployment(deployment: &Deployment) -> Option<String> {
    let status = deployment.status.as_ref();
    let find = |kind: &str, value: &str| {
        let mut conditions = status
            .and_then(|it| it.conditions.as_ref())
            .into_iter()
            .flatten();
        conditions
            .find(|it| it.type_.as_deref() == Some(kind) && it.status.as_deref() == Some(value))
    };
    if find("Available", "True").is_some() {
        return None;
    }
    let said = find("ReplicaFailure", "True")
        .or_else(|| find("Progressing", "False"))
        .and_then(|it| it.message.clone());
    let pods = status.and_then(|it| it.replicas).unwrap_or(0);
    let ready = status.and_then(|it| it.ready_replicas).unwrap_or(0);
    Some(said.unwrap_or_else(|| format!("{ready} of its {pods} pods are ready")))
}

async fn of_pods(cluster: &Cluster, namespace: &str, deployment: &Deployment) -> Vec<String> {
    let labels = deployment.spec.selector.match_labels.clone();
    let selector: Vec<String> = labels
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    let api: Api<Pod> = Api::namespaced(cluster.client.clone(), namespace);
    let pods = api
        .list(&ListParams::default().labels(&selector.join(",")))
        .await;
    let said = |pod: &Pod| {
        let name = pod.metadata.name.clone().unwrap_or_default();
        Some(format!("Pod {namespace}/{name}: {}", of_pod(pod)?))
    };
    pods.map(|pods| pods.items.iter().filter_map(said).collect())
        .unwrap_or_default()
}

/// `None` when it is ready.
fn of_pod(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let conditions = || status.conditions.iter().flatten();
    if conditions().any(|it| it.type_ == "Ready" && it.status == "True") {
        return None;
    }
    let containers = status.init_container_statuses.iter().flatten();
    let mut containers = containers.chain(status.container_statuses.iter().flatten());
    let unscheduled = || {
        let condition =
            conditions().find(|it| it.type_ == "PodScheduled" && it.status == "False")?;
        Some(words(
            condition.reason.as_deref(),
            condition.message.as_deref(),
        ))
    };
    let phase = || {
        status
            .phase
            .clone()
            .unwrap_or_else(|| "its phase is not known".to_owned())
    };
    Some(
        containers
            .find_map(of_container)
            .or_else(unscheduled)
            .unwrap_or_else(phase),
    )
}

fn of_container(container: &ContainerStatus) -> Option<String> {
    let state = container.state.as_ref()?;
    let last = container
        .last_state
        .as_ref()
        .and_then(|it| it.terminated.as_ref());
    let ended = state.terminated.as_ref().or(last).map(|it| {
        let said = words(it.reason.as_deref(), it.message.as_deref());
        format!("it ended with exit code {}: {said}", it.exit_code)
    });
    let waits = state
        .waiting
        .as_ref()
        .map(|it| words(it.reason.as_deref(), it.message.as_deref()));
    let said: Vec<String> = waits.into_iter().chain(ended).collect();
    (!said.is_empty()).then(|| format!("container {}: {}", container.name, said.join("; ")))
}

fn words(reason: Option<&str>, message: Option<&str>) -> String {
    match (
        reason.unwrap_or_default(),
        message.unwrap_or_default().trim(),
    ) {
        (reason, "") => reason.to_owned(),
        ("", message) => message.to_owned(),
        (reason, message) => format!("{reason}: {message}"),
    }
}
