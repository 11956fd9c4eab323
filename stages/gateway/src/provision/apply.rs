//! Putting the objects of a plan onto the cluster, with our mark.

use std::time::Duration;

use cluster::Cluster;
use cluster::objects::{Kind, Kinds, Reference};
use futures::StreamExt;
use futures::stream;
use kube::api::{Patch, PatchParams};
use kube::core::DynamicObject;
use kube::runtime::wait::await_condition;
use protocol::StageError;
use serde_json::Value;

use super::object::Object;
use super::plan::{Step, Verdict, marked, place};
use crate::lease::MANAGER;

/// The API needs a second or so for a CRD; a busy one a few.
const ESTABLISHED: Duration = Duration::from_secs(60);

/// How long something that is being deleted may take to go: a namespace takes its contents along.
const GONE: Duration = Duration::from_secs(90);

/// CRDs side by side.
const AT_ONCE: usize = 4;

/// Tells how many of how many are done.
pub(crate) type Tell<'a> = &'a dyn Fn(String, usize, usize);

/// CRDs, until the API serves all of them; then the rest, in its order.
pub(crate) async fn apply(
    cluster: &Cluster,
    steps: &[Step],
    mark: &str,
    tell: Tell<'_>,
) -> Result<(), StageError> {
    let (crds, rest): (Vec<&Step>, Vec<&Step>) = steps
        .iter()
        .filter(|it| it.applies())
        .partition(|it| it.is_crd());
    let total = crds.len() + rest.len();
    let mut done = 0;
    let mut under_way = stream::iter(crds.iter().map(|step| definition(cluster, step, mark)))
        .buffer_unordered(AT_ONCE);
    while let Some(name) = under_way.next().await {
        let name = name?;
        done += 1;
        tell(format!("applied {name}"), done, total);
    }
    drop(under_way);
    let mut kinds = Kinds::new(cluster);
    for step in rest {
        let mut object = step.object.clone();
        let kind = match &step.kind {
            Some(kind) => kind.clone(),
            None => defined(cluster, &mut kinds, &mut object).await?,
        };
        let title = object.reference.title();
        if step.verdict == Verdict::Wait {
            tell(format!("waiting until {title} is gone"), done, total);
            gone(cluster, &kind, &object.reference).await?;
        }
        let ours = step.verdict == Verdict::Renew;
        one(cluster, &kind, &object, mark, ours).await?;
        done += 1;
        tell(format!("applied {title}"), done, total);
    }
    Ok(())
}

/// The kind of an object that was not served when the plan was made.
async fn defined(
    cluster: &Cluster,
    kinds: &mut Kinds<'_>,
    object: &mut Object,
) -> Result<Kind, StageError> {
    let kind = kinds.of(&object.reference).await?.ok_or_else(|| {
        let message = format!(
            "the API does not know {} of {}, and no CRD of the manifests defines it",
            object.reference.kind, object.reference.api_version
        );
        StageError::new("gateway.manifest_unknown_kind", message)
            .hint("name the manifests of its CRD in `provision_manifests` too")
    })?;
    place(object, &kind, cluster);
    Ok(kind)
}

async fn definition(cluster: &Cluster, step: &Step, mark: &str) -> Result<String, StageError> {
    let title = step.object.reference.title();
    let Some(kind) = &step.kind else {
        return Err(StageError::internal("the API does not serve CRDs"));
    };
    if step.verdict == Verdict::Wait {
        gone(cluster, kind, &step.object.reference).await?;
    }
    one(cluster, kind, &step.object, mark, false).await?;
    let reference = &step.object.reference;
    let established = await_condition(
        kind.api(cluster, reference),
        &reference.name,
        is_established,
    );
    let (message, hint) = match tokio::time::timeout(ESTABLISHED, established).await {
        Ok(Ok(_)) => return Ok(title),
        Ok(Err(error)) => {
            let message = format!("cannot {}", kind.attempt("watch", reference).describe());
            let error = StageError::new("cluster.api_error", message).source(&error);
            return Err(error.retryable(true));
        }
        Err(_) => (
            format!(
                "{title} was applied, but the API does not serve it after {} s",
                ESTABLISHED.as_secs()
            ),
            format!(
                "`kubectl get crd {} -o yaml` shows its conditions",
                reference.name
            ),
        ),
    };
    Err(StageError::new("gateway.crd_not_established", message).hint(hint))
}

fn is_established(crd: Option<&DynamicObject>) -> bool {
    let conditions = crd.and_then(|crd| crd.data["status"]["conditions"].as_array());
    let established = |it: &Value| it["type"] == "Established" && it["status"] == "True";
    conditions.is_some_and(|all| all.iter().any(established))
}

/// What is ours is ours to the last field; what is new to the cluster has no other fields to conflict with.
pub(crate) async fn one(
    cluster: &Cluster,
    kind: &Kind,
    object: &Object,
    mark: &str,
    ours: bool,
) -> Result<(), StageError> {
    let mut params = PatchParams::apply(MANAGER);
    params.force = ours;
    let body = marked(object, mark);
    let api = kind.api(cluster, &object.reference);
    let patch = Patch::Apply(&body);
    let applied = api.patch(&object.reference.name, &params, &patch).await;
    applied.map(drop).map_err(|error| {
        let failed = kind.failed(cluster, "patch", &object.reference, &error);
        failed.cause(format!("it was about {}", object.reference.title()))
    })
}

pub(crate) async fn gone(
    cluster: &Cluster,
    kind: &Kind,
    reference: &Reference,
) -> Result<(), StageError> {
    let (api, name) = (kind.api(cluster, reference), &reference.name);
    let absent = await_condition(api, name, |it: Option<&DynamicObject>| it.is_none());
    match tokio::time::timeout(GONE, absent).await {
        Ok(Ok(_)) => Ok(()),
        _ => {
            let (title, kind) = (reference.title(), kind.title());
            let seconds = GONE.as_secs();
            let message = format!("{title} is being deleted, and still there after {seconds} s");
            let hint = format!("`kubectl get {kind} {name} -o yaml` shows what it waits for");
            let error = StageError::new("gateway.infrastructure_left", message);
            Err(error.hint(hint).retryable(true))
        }
    }
}
